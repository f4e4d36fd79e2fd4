"""docs/how-to/component.md, followed literally in a new project of `create-dagster`: a month is loaded.

Only `pip install` is replaced, because it downloads packages. The package that `make dist` built is installed, and its
dependencies are those of this test's environment.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sysconfig
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from taxi_assets_tests.deployments.processes import BIN
from taxi_assets_tests.deployments.test_documented_commands import Shell, fresh_copy
from taxi_assets_tests.documentation import BLOCKS

if TYPE_CHECKING:
    from pathlib import Path

    from taxi_assets_tests.documentation import Block

pytestmark = pytest.mark.timeout(1800)  # the first test runs all commands of the page

PAGE = [block for block in BLOCKS if block.document == "docs/how-to/component.md"]
PACKAGES = sysconfig.get_paths()["purelib"]
ROWS = 24_874


@dataclass
class Reader:
    """A reader who follows the page in a folder that contains a clone of the project."""

    folder: Path
    shell: Shell
    output: str = ""
    assets: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        """The folder of the new project."""
        return self.folder / "mobility"

    def run(self, commands: str) -> str:
        """Run commands in the folder that the previous ones have changed to, and return their output."""
        output = self.shell.output(f'cd "$FOLDER"\n{commands}\nexport FOLDER="$PWD"\ncd "$HOME"')
        self.output += output
        return output

    def follow(self, block: Block) -> None:
        """Do what a block of the page says."""
        if block.file:
            (self.project / block.file).write_text(block.text)
        elif block.language == "toml":
            self._replace_dependencies(block.text)
        elif block.language == "python":
            self.run(f"python - <<'END'\n{block.text}END")
        elif "\npip install " in block.text:
            self.run(re.sub(r"^pip install .*\n", "", block.text, flags=re.MULTILINE))
            self._install()
        else:
            self.run(block.text)

    def _replace_dependencies(self, text: str) -> None:
        file = self.project / "pyproject.toml"
        replaced, count = re.subn(
            r"^dependencies = \[\n.*?^\]\n", text, file.read_text(), flags=re.MULTILINE | re.DOTALL
        )
        assert count == 1
        file.write_text(replaced)

    def _install(self) -> None:
        python = self.project / ".venv/bin/python"
        (wheel,) = (self.folder / "taxi_assets/dist").glob("*.whl")
        options: list[str | Path] = ["--quiet", "--offline", "--no-deps", "--python", python]
        subprocess.run([BIN / "uv", "pip", "install", *options, wheel], check=True)
        (installed,) = (self.project / ".venv/lib").glob("python3*/site-packages")
        (installed / "this_test.pth").write_text(f"{self.project / 'src'}\n{PACKAGES}\n")
        for name in ("dagster", "dg"):
            command_file = self.project / ".venv/bin" / name
            _, _, script = (BIN / name).read_text().partition("\n")
            command_file.write_text(f"#!{python}\n{script}")
            command_file.chmod(0o755)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    folder = tmp_path_factory.mktemp("work")
    (folder / "taxi_assets").mkdir()
    fresh_copy(folder / "taxi_assets")
    (folder / "exported").touch()
    variables = {
        "HOME": str(folder),
        "FOLDER": str(folder),
        "PATH": f"{BIN}:{os.environ['PATH']}",  # `python3` is the Python of this test
        "DAGSTER_DG_UPDATE_CHECK_ENABLED": "0",  # it asks a package index
    }
    reader = Reader(folder, Shell(folder, variables))
    for block in PAGE:
        reader.follow(block)
    listed = json.loads(reader.run("dg list defs --json 2>/dev/null"))
    reader.assets = {asset["asset_key"]: asset for asset in listed["assets"]}
    return reader


def test_the_component_is_listed_and_the_project_uses_the_built_package(reader: Reader) -> None:
    assert "taxi_assets.component.TaxiPipeline" in reader.output
    assert "All component YAML validated successfully." in reader.output
    assert "All definitions loaded successfully." in reader.output
    imported = reader.run("python -c 'import taxi_assets; print(taxi_assets.__file__)'")
    assert imported.startswith(str(reader.project / ".venv"))


def test_the_lineage_leads_from_the_publisher_to_the_marts_and_to_the_new_asset(reader: Reader) -> None:
    upstream = {key: set(asset["dependency_keys"]) for key, asset in reader.assets.items()}
    assert upstream["raw/green_trips"] == {"published/green_trips"}
    assert upstream["clean/green_trips"] == {"raw/green_trips"}
    assert upstream["warehouse/green_trips"] == {"clean/green_trips"}
    assert "warehouse/green_trips" in upstream["marts/zone_day"]
    assert upstream["mobility/airport_trips"] == {"warehouse/green_trips"}


def test_the_yaml_file_sets_owners_tags_and_groups(reader: Reader) -> None:
    platform = {key: asset for key, asset in reader.assets.items() if not key.startswith("mobility/")}
    assert {str(asset["owners"]) for asset in platform.values()} == {"[{'team': 'mobility'}]"}
    gold = {key for key, asset in platform.items() if {"key": "tier", "value": "gold"} in asset["tags"]}
    assert gold == {key for key in platform if key.startswith("warehouse/")}
    assert {asset["group_name"] for key, asset in platform.items() if key.endswith("/green_trips")} == {"green_taxis"}


def test_a_month_is_loaded_in_the_project(reader: Reader) -> None:
    assert reader.output.count("RUN_SUCCESS") == 2
    with duckdb.connect(str(reader.project / "data/warehouse.duckdb"), read_only=True) as connection:
        assert connection.sql("SELECT count(*), count(DISTINCT source_row) FROM taxi.green_trips").fetchall() == [
            (ROWS, ROWS)
        ]
    assert (reader.project / "data/lake/clean/green_trips/2021-01.parquet").is_file()


def test_the_rows_of_the_new_asset_are_in_the_warehouse(reader: Reader) -> None:
    with duckdb.connect(str(reader.project / "data/warehouse.duckdb"), read_only=True) as connection:
        (found,) = connection.sql(
            "SELECT count(*), bool_and(data_month = DATE '2021-01-01'), min(trips) > 0 FROM taxi.airport_trips"
        ).fetchall()
    assert found == (3, True, True)

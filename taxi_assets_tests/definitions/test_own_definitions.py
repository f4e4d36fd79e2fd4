"""Your own definitions: in the package `defs`, where `dg` writes them, or in a module that imports the platform's."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from textwrap import dedent
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from dagster._core.workspace.autodiscovery import loadable_targets_from_loaded_module

from taxi_assets.build import build_definitions, merge_definitions
from taxi_assets.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

MINE = """
    import dagster as dg

    @dg.asset(key=["mine", "answer"], deps=[["warehouse", "green_trips"]], io_manager_key="values")
    def answer() -> int:
        return 42

    job = dg.define_asset_job("mine", selection=[answer])
"""
RESOURCES = """
    import dagster as dg

    @dg.definitions
    def resources() -> dg.Definitions:
        return dg.Definitions(resources={"values": dg.FilesystemIOManager(base_dir="values")})
"""
TEAM = """
    type: dagster.DefsFolderComponent
    post_processing:
      assets:
        - attributes: {owners: ["team:analytics"]}
"""
IN_ONE_MODULE = """
    import dagster as dg
    {imports}

    @dg.asset(deps=[["warehouse", "green_trips"]])
    def mine() -> None: ...

    {defs}
"""


@dataclass(frozen=True)
class Folder:
    """A folder on the import path of the test."""

    path: Path

    def write(self, name: str, text: str) -> None:
        """Write a file, and create its folders."""
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(dedent(text))

    def load(self, module: str) -> ModuleType:
        """Import a module of the folder."""
        importlib.invalidate_caches()
        return importlib.import_module(module)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield Folder(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] in {"own", "my_module"}]:
        del sys.modules[name]


def load_package(package: ModuleType) -> dg.Definitions:
    from taxi_assets import definitions  # noqa: PLC0415  (importing it reads the environment)

    return definitions.load_package(package)


def asset_keys(defs: dg.Definitions) -> set[str]:
    return {key.to_user_string() for key in defs.resolve_all_asset_keys()}


def loaded_by_dagster(module: ModuleType) -> dg.Definitions:
    """Return the definitions that Dagster finds in a module, as its command line does."""
    (target,) = loadable_targets_from_loaded_module(module)
    found = target.target_definition
    defs = found() if callable(found) else found
    assert isinstance(defs, dg.Definitions)
    return defs


def test_a_definition_in_the_package_is_part_of_the_deployment(folder: Folder) -> None:
    folder.write("own/__init__.py", "")
    folder.write("own/mine.py", MINE)
    folder.write("own/resources.py", RESOURCES)
    taxi = build_definitions(Settings())

    merged = merge_definitions(taxi, load_package(folder.load("own")))

    assert asset_keys(merged) - asset_keys(taxi) == {"mine/answer"}
    assert merged.executor is taxi.executor
    with dg.DagsterInstance.ephemeral() as instance:
        assert merged.resolve_job_def("mine").execute_in_process(instance=instance).success
        assert merged.load_asset_value("mine/answer", instance=instance) == 42


def test_a_component_in_a_folder_of_the_package_is_loaded(folder: Folder) -> None:
    folder.write("own/__init__.py", "")
    folder.write("own/team/defs.yaml", TEAM)
    folder.write("own/team/mine.py", MINE)
    folder.write("own/team/resources.py", RESOURCES)
    owners = {spec.key: spec.owners for spec in load_package(folder.load("own")).resolve_all_asset_specs()}
    assert owners[dg.AssetKey(["mine", "answer"])] == ["team:analytics"]


def test_a_package_without_definitions_adds_nothing(folder: Folder) -> None:
    folder.write("own/__init__.py", '"""Nothing yet."""')
    assert asset_keys(load_package(folder.load("own"))) == set()


def test_a_definition_whose_name_is_taken_is_an_error(folder: Folder) -> None:
    folder.write("own/__init__.py", "")
    folder.write("own/mine.py", MINE.replace('"mine", "answer"', '"clean", "green_trips"'))
    merged = merge_definitions(build_definitions(Settings()), load_package(folder.load("own")))
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="clean"):
        merged.resolve_asset_graph()


# --- a module that imports the platform's definitions -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("imports", "defs"),
    [
        (
            "from taxi_assets import definitions as taxi",
            "defs = dg.Definitions.merge(taxi.defs, dg.Definitions(assets=[mine]))",
        ),
        (
            "from taxi_assets.definitions import defs as taxi",
            "defs = dg.definitions(lambda: dg.Definitions.merge(taxi, dg.Definitions(assets=[mine])))",
        ),
    ],
    ids=["module", "function"],
)
def test_a_module_can_merge_its_definitions_with_those_of_the_platform(folder: Folder, imports: str, defs: str) -> None:
    folder.write("my_module.py", IN_ONE_MODULE.format(imports=imports, defs=defs))
    merged = loaded_by_dagster(folder.load("my_module"))
    assert {"mine", "warehouse/green_trips"} <= asset_keys(merged)


def test_dagster_refuses_a_module_with_two_definitions_and_names_both(folder: Folder) -> None:
    imports, defs = "from taxi_assets.definitions import defs as taxi", "defs = dg.Definitions(assets=[mine])"
    folder.write("my_module.py", IN_ONE_MODULE.format(imports=imports, defs=defs))
    with pytest.raises(dg.DagsterInvariantViolationError, match=r"my_module\.defs, my_module\.taxi"):
        loaded_by_dagster(folder.load("my_module"))

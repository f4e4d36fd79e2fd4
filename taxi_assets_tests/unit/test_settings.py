"""Settings: the defaults work, an invalid value is one line with the accepted values, and no secret is ever shown."""

from __future__ import annotations

import ast
import base64
import json
from typing import TYPE_CHECKING, get_args

import dagster as dg
import pytest

from taxi_assets.addresses import BigQueryAddress, BucketAddress, DuckDBAddress, FolderAddress
from taxi_assets.errors import SettingsError
from taxi_assets.settings import Settings
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.sources.publishers import PUBLISHERS
from taxi_assets_tests.conftest import PLATFORM_MODULES, REPOSITORY
from taxi_assets_tests.google.service_account import ServiceAccount

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "Use a folder, such as ./data/lake, or gs://bucket/prefix."
DUCKDB = "Use duckdb:///relative/path.duckdb or duckdb:////absolute/path.duckdb, optionally with ?schema=name"
OWNERS = "Use email addresses, and teams such as team:taxi-data, separated by commas."
SOURCES = f"Use {', '.join(PUBLISHERS)}, a folder that exists"


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def error_lines(monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[str]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        Settings.from_env()
    return error.value.problem.split("\n")


# --- valid values -----------------------------------------------------------------------------------------------------


def test_by_default_lake_and_warehouse_are_under_the_data_folder(here: Path) -> None:
    settings = Settings.from_env()
    assert settings.lake == FolderAddress(folder=here / "data/lake")
    assert settings.warehouse == DuckDBAddress(file=here / "data/warehouse.duckdb", schema_name="taxi")
    assert settings.source == "auto"
    assert list(here.iterdir()) == [], "no folder is created before it is needed"


def test_white_space_around_an_address_is_ignored(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_LAKE", " lake ")
    monkeypatch.setenv("TAXI_WAREHOUSE", " duckdb:///w.duckdb\n")
    settings = Settings.from_env()
    assert settings.lake == FolderAddress(here / "lake")
    assert settings.warehouse == DuckDBAddress(here / "w.duckdb")


def test_lake_and_warehouse_can_be_on_google_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_LAKE", "gs://taxi-lake/nyc")
    monkeypatch.setenv("TAXI_WAREHOUSE", "bigquery://taxi-project/taxi?location=EU")
    settings = Settings.from_env()
    assert settings.lake == BucketAddress("taxi-lake", "nyc")
    assert settings.warehouse == BigQueryAddress("taxi-project", "taxi", "EU")


def test_a_lake_can_be_an_absolute_path_or_in_the_home_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here / "home"))
    for value, folder in ((str(here / "lake"), here / "lake"), ("~/lake", here / "home/lake")):
        monkeypatch.setenv("TAXI_LAKE", value)
        assert Settings.from_env().lake == FolderAddress(folder)


@pytest.mark.parametrize("value", ["auto", "datatalksclub", "tlc", "sample", "files", "http://host/x", "https://host"])
def test_a_source_is_a_publisher_a_folder_or_an_address(
    here: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    (here / "files").mkdir()
    monkeypatch.setenv("TAXI_SOURCE", value)
    assert Settings.from_env().source == value


def test_a_service_can_have_a_source_of_its_own(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "files").mkdir()
    assert Settings.from_env().service_sources == {}
    for name, value in (("GREEN", "files"), ("FHV", ""), ("FILE", "/run/secrets/source"), ("YELLOW_FILE", "/run/x")):
        monkeypatch.setenv(f"TAXI_SOURCE_{name}", value)
    assert Settings.from_env().service_sources == {"green": "files"}
    given = Settings.from_env({"service_sources": {"yellow": "tlc", "fhv": "files"}}, project_root=here)
    assert given.service_sources == {"green": str(here / "files"), "yellow": "tlc", "fhv": str(here / "files")}


def test_addresses_of_services_in_kubernetes_are_not_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TAXI_SERVICE_PORT", "TAXI_PORT_80_UDP", "TAXI_SOURCE_FILES_PORT", "TAXI_SOURCE_FILES_PORT_80_TCP"):
        monkeypatch.setenv(name, "tcp://10.0.0.11:80")
    monkeypatch.setenv("TAXI_UI_SERVICE_SERVICE_PORT", "80")  # of a service named taxi-ui-service
    for service in ("TAXI", "TAXI_SOURCE_FILES", "TAXI_UI_SERVICE"):
        monkeypatch.setenv(f"{service}_SERVICE_HOST", "10.0.0.11")
    assert Settings.from_env().service_sources == {}


@pytest.mark.parametrize("name", ["TAXI_ASSETS_PORT", "TAXI_PORTS_80_TCP", "TAXI_SERVICE_HOSTS", "TAXI_X_SERVICE_PRT"])
def test_a_name_like_that_of_an_address_is_misspelt_without_the_services_host(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "any")
    monkeypatch.setenv("TAXI_OTHER_SERVICE_HOST", "10.0.0.11")
    with pytest.raises(SettingsError, match=f"^{name} is not a setting"):
        Settings.from_env()


def test_a_misspelt_variable_is_refused_with_the_name_that_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    color, lake, source = error_lines(monkeypatch, TAXI_LKAE="lake", TAXI_SOURCE="nowhere/at all", TAXI_COLOR="red")
    assert color == "TAXI_COLOR is not a setting. See docs/settings.md."
    assert lake == "TAXI_LKAE is not a setting. Did you mean TAXI_LAKE?"
    assert source.startswith("TAXI_SOURCE='nowhere/at all' is not accepted.")


def test_an_invalid_source_of_a_service_is_one_line_that_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = error_lines(monkeypatch, TAXI_SOURCE_GREN="sample")
    assert line == (f"TAXI_SOURCE_GREN is not accepted. There is no service 'gren'. Use one of {', '.join(SERVICES)}.")
    monkeypatch.delenv("TAXI_SOURCE_GREN")
    (line,) = error_lines(monkeypatch, TAXI_SOURCE_GREEN="ftp://user:hunter2@host")
    assert line.startswith("TAXI_SOURCE_GREEN='ftp://…@host' is not accepted. URLs that begin with ftp://")
    monkeypatch.delenv("TAXI_SOURCE_GREEN")
    with pytest.raises(SettingsError, match=r"^service_sources\.green='nowhere' is not accepted\. There is no such"):
        Settings.from_env({"service_sources": {"green": "nowhere"}})


def test_no_setting_is_mistaken_for_the_source_of_a_service() -> None:
    assert not [name for name in Settings.model_fields if name.startswith("source_")]


@pytest.mark.parametrize(
    ("value", "owners"),
    [
        ("jane@example.com", ("jane@example.com",)),
        (" team:mobility , jane@example.com,team:mobility,", ("team:mobility", "jane@example.com")),
        ("", ("team:taxi-data",)),
        (" , ", ("team:taxi-data",)),
    ],
)
def test_owners_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch, value: str, owners: tuple[str, ...]) -> None:
    monkeypatch.setenv("TAXI_OWNERS", value)
    assert Settings.from_env().owners == owners


def test_an_existing_lake_and_warehouse_are_accepted(here: Path) -> None:
    (here / "data/lake").mkdir(parents=True)
    (here / "data/warehouse.duckdb").touch()
    assert Settings.from_env().lake == FolderAddress(here / "data/lake")


def test_schedules_and_sensors_are_switched_on_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.from_env().switched_on == frozenset()
    monkeypatch.setenv("TAXI_SWITCHED_ON", "green_monthly, yellow_publication\npublication_daily,")
    assert Settings.from_env().switched_on == {"green_monthly", "yellow_publication", "publication_daily"}


def test_given_settings_take_precedence_over_variables(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_LAKE", "s3://not-accepted")
    assert Settings.from_env({"lake": "mine"}).lake == FolderAddress(here / "mine")


def test_every_relative_path_is_in_the_given_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = here / "project"
    (root / "files").mkdir(parents=True)
    with ServiceAccount() as account:
        (root / "key.json").write_text(account.json)
    monkeypatch.setenv("TAXI_SOURCE", "files")
    monkeypatch.setenv("TAXI_GOOGLE_CREDENTIALS", "key.json")
    settings = Settings.from_env({"warehouse": "duckdb:///my/w.duckdb"}, project_root=root)
    assert settings.source == str(root / "files")
    assert settings.google_key == str(root / "key.json")
    assert settings.lake == FolderAddress(root / "data/lake")
    assert settings.warehouse == DuckDBAddress(root / "my/w.duckdb")


@pytest.mark.parametrize(
    ("lake", "warehouse", "source"),
    [
        ("gs://taxi-lake/nyc", "bigquery://taxi-project/taxi", "tlc"),
        ("gs://taxi-lake/nyc", "postgresql://user@host/taxi", "https://host/files"),
        ("/lake", "duckdb:////w.duckdb", "sample"),
        ("~/lake", "duckdb:///~/w.duckdb", "gs://bucket/files"),
    ],
)
def test_the_given_folder_changes_no_other_addresses(
    here: Path, monkeypatch: pytest.MonkeyPatch, lake: str, warehouse: str, source: str
) -> None:
    monkeypatch.setenv("HOME", "/home")
    given = {"lake": lake, "warehouse": warehouse, "source": source}
    assert Settings.from_env(given, project_root=here) == Settings.from_env(given)


# --- invalid values ---------------------------------------------------------------------------------------------------


NUMBERS = [
    ("TAXI_CATALOG_KEEP_DAYS", ["abc", "0", "-1", "1.5"], "Write a whole number of at least 1. Or do not set it."),
    ("TAXI_MAX_FILE_BYTES", ["1 GB", "0"], "Write a whole number of at least 1."),
    ("TAXI_MAX_EXPANSION_RATIO", ["x", "-5"], "Write a whole number of at least 1."),
    ("TAXI_PUBLICATION_INTERVAL_SECONDS", ["1h", "0", "604801"], "Write a whole number from 1 to 604800."),
    ("TAXI_RETRY_DELAY_SECONDS", ["x", "nan", "inf", "-1", "604801"], "Write a number from 0 to 604800."),
    ("TAXI_NOTIFY_SUCCESS", ["maybe"], "Write true or false."),
    ("TAXI_KEEP_REVISIONS", ["few"], "Use all, or the number of older revisions to keep, such as 0 or 3."),
]


def test_each_number_and_switch_is_among_the_tested_ones() -> None:
    types = {name: {field.annotation, *get_args(field.annotation)} for name, field in Settings.model_fields.items()}
    found = {f"TAXI_{name.upper()}" for name in types if types[name] & {int, float, bool}}
    assert found == {variable for variable, *_ in NUMBERS}


@pytest.mark.parametrize(
    ("variable", "value", "reason", "accepted"),
    [
        ("TAXI_LAKE", "", "It is empty.", FOLDER),
        ("TAXI_LAKE", "  ", "It is empty.", FOLDER),
        ("TAXI_LAKE", "gs://Bucket/prefix", "Its bucket name is missing or invalid", ""),
        ("TAXI_LAKE", "file:///lake", "", FOLDER),
        ("TAXI_LAKE", "http://[", "", FOLDER),
        ("TAXI_LAKE", "a-file", "It is a file.", FOLDER),
        ("TAXI_LAKE", "a-file/lake", "Not a directory.", FOLDER),
        ("TAXI_LAKE", "x" * 300, "File name too long.", FOLDER),
        ("TAXI_LAKE", "~nobody-of-this-name/lake", "Could not determine home directory.", FOLDER),
        ("TAXI_WAREHOUSE", "", "", DUCKDB),
        ("TAXI_WAREHOUSE", "warehouse.duckdb", "", DUCKDB),
        ("TAXI_WAREHOUSE", "duckdb:warehouse.duckdb", "", DUCKDB),
        ("TAXI_WAREHOUSE", "duckdb://host/warehouse.duckdb", "", DUCKDB),
        ("TAXI_WAREHOUSE", "duckdb:///", "", DUCKDB),
        ("TAXI_WAREHOUSE", "duckdb://[", "", DUCKDB),
        ("TAXI_WAREHOUSE", "mysql://host/taxi", "", DUCKDB),
        ("TAXI_WAREHOUSE", "bigquery://taxi-project", "Its project or dataset is missing or invalid", ""),
        ("TAXI_WAREHOUSE", "duckdb:///a-folder", "It is a folder.", DUCKDB),
        ("TAXI_WAREHOUSE", "duckdb:////", "It is a folder.", DUCKDB),
        ("TAXI_WAREHOUSE", "duckdb:///a-file/w.duckdb", "Not a directory.", DUCKDB),
        ("TAXI_OWNERS", "jane", "'jane' is not an owner.", OWNERS),
        ("TAXI_OWNERS", "team:taxi-data, team:", "'team:' is not an owner.", OWNERS),
        ("TAXI_SWITCHED_ON", "green_hourly", "There is no 'green_hourly'. Use yellow_monthly, yellow_daily, ", ""),
        *((variable, value, accepted, "") for variable, values, accepted in NUMBERS for value in values),
        ("TAXI_SOURCE", "", "It is empty.", SOURCES),
        ("TAXI_SOURCE", "TLC", "There is no such publisher and no such folder: TLC.", SOURCES),
        ("TAXI_SOURCE", "s3://bucket", "URLs that begin with s3:// are not supported.", SOURCES),
        ("TAXI_SOURCE", "a-file", "a-file is a file, not a folder.", SOURCES),
        (
            "TAXI_SOURCE",
            "x" * 300,
            "File name too long.",
            "Use the name of a publisher, an existing folder, or an address.",
        ),
    ],
)
def test_an_invalid_value_is_one_line_with_the_variable_the_value_and_the_accepted_values(
    here: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str, accepted: str
) -> None:
    (here / "a-file").touch()
    (here / "a-folder").mkdir()
    (line,) = error_lines(monkeypatch, **{variable: value})
    details = f"{reason} {accepted}".strip()
    assert line.startswith(f"{variable}={value!r} is not accepted. {details}")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("duckdb:///w.duckdb?schema=", "'' is not a valid schema name"),
        ("duckdb:///w.duckdb?schema=1st", "'1st' is not a valid schema name"),
        ("duckdb:///w.duckdb?schema=my-taxi", "'my-taxi' is not a valid schema name"),
        ('duckdb:///w.duckdb?schema=my schema"x', "'my schema\"x' is not a valid schema name"),
        (f"duckdb:///w.duckdb?schema={'x' * 64}", "is not a valid schema name"),
        ("duckdb:///w.duckdb?scheme=taxi", DUCKDB),
        ("duckdb:///w.duckdb?schema", DUCKDB),
        ("duckdb:///w.duckdb?schema=taxi&schema=nyc", DUCKDB),
        ("duckdb:///?schema=taxi", DUCKDB),
    ],
)
def test_the_options_of_a_duckdb_address_accept_only_a_plain_schema_name(
    monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    (line,) = error_lines(monkeypatch, TAXI_WAREHOUSE=value)
    assert line.startswith("TAXI_WAREHOUSE=")
    assert message in line


def test_each_invalid_variable_has_its_own_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = error_lines(monkeypatch, TAXI_LAKE="", TAXI_WAREHOUSE="x\ny", TAXI_SOURCE="a\nb")
    assert [line.partition(" is not accepted. ")[0] for line in lines] == [
        "TAXI_SOURCE='a\\nb'",
        "TAXI_LAKE=''",
        "TAXI_WAREHOUSE='x\\ny'",
    ]
    assert all(" Use " in line for line in lines)


WITH_SECRETS = [
    "s3://user:hunter2@host/x",
    "s3://host/x?token=hunter2",
    "s3://host/x#hunter2",
    "gs://user:hun@hunter2@host/x?a=b@c",
    "mysql://user:x/hunter2@host/db?password=hunter2&y=hunter2",
    "http://[user:hunter2@host?token=hunter2",
    "http://user:hunter2@host:no-port/",
    "https:/user:hunter2@host/x",
    "user:hunter2@host/x",
    "user: hunter2@host\nhunter2@x?hunter2\nhunter2",
    "files?token=hunter2",
]


@pytest.mark.parametrize("variable", ["TAXI_LAKE", "TAXI_WAREHOUSE", "TAXI_SOURCE"])
@pytest.mark.parametrize("value", WITH_SECRETS)
def test_secrets_in_an_invalid_value_are_not_shown(
    here: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    # These are valid names of a folder, so a file with that name makes them invalid.
    if variable == "TAXI_LAKE" and "://" not in value:
        monkeypatch.chdir(here)
        path = here / value
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    lines = error_lines(monkeypatch, **{variable: value})
    assert len(lines) == 1
    assert "hunter2" not in lines[0]
    assert lines[0].startswith(f"{variable}=")


def test_the_error_has_no_cause_that_holds_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_SOURCE", "s3://user:hunter2@host/x")
    with pytest.raises(SettingsError) as error:
        Settings.from_env()
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__, "a traceback would show pydantic's message, which quotes the value"


def test_the_repr_of_settings_leaves_out_the_source_because_it_may_hold_a_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAXI_SOURCE", "https://user:hunter2@host/x")
    assert "hunter2" not in repr(Settings.from_env())


# --- credentials ------------------------------------------------------------------------------------------------------


def key(**parts: str) -> str:
    return base64.b64encode(json.dumps(parts).encode()).decode()


@pytest.mark.parametrize("value", ["", " \n"])
def test_no_google_key_means_application_default_credentials(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    assert Settings.from_env().google_key is None
    monkeypatch.setenv("TAXI_GOOGLE_CREDENTIALS", value)
    assert Settings.from_env().google_key is None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("hunter2/no-such-file.json", "It is neither the path of a readable file, nor JSON in base64."),
        ("/hunter2\n{not base64}", "It is neither the path of a readable file, nor JSON in base64."),
        ("hunter2x", "It is neither the path of a readable file, nor JSON in base64."),
        ("hunter2-file", "The file is not JSON."),
        (base64.b64encode(b"hunter2, hunter2").decode(), "nor JSON in base64."),
        (base64.b64encode(b'"hunter2"').decode(), "It is JSON, but not a service account's key."),
        (key(type="authorized_user", account="hunter2"), "It is JSON, but not a service account's key."),
        (
            key(type="service_account", private_key="hunter2"),
            "a service account's key, but a part is missing or damaged.",
        ),
        (
            key(type="service_account", private_key="hunter2", client_email="x", token_uri="x"),  # noqa: S106  (no secret)
            "a service account's key, but a part is missing or damaged.",
        ),
    ],
)
def test_an_invalid_google_key_is_one_line_that_quotes_nothing_of_the_key(
    here: Path, monkeypatch: pytest.MonkeyPatch, value: str, reason: str
) -> None:
    (here / "hunter2-file").write_bytes(b"hunter2 \xff")
    (line,) = error_lines(monkeypatch, TAXI_GOOGLE_CREDENTIALS=value)
    assert line.startswith("TAXI_GOOGLE_CREDENTIALS is not accepted. ")
    assert line.endswith(reason)
    assert "hunter2" not in line
    assert value not in line


def test_a_secret_is_passed_on_as_the_name_of_the_variable_that_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with ServiceAccount() as account:
        given = {"source": "https://user:hunter2@host/x", "google_credentials": account.base64}
    with pytest.raises(SettingsError) as error:
        Settings.from_env(given)
    fix = "is not accepted. It contains a secret. Put it into an environment variable, and write {{ env.NAME }} here."
    assert error.value.problem.splitlines() == [f"source='https://…@host/x' {fix}", f"google_credentials {fix}"]
    monkeypatch.setenv("TEAM_SOURCE", given["source"])
    monkeypatch.setenv("TEAM_KEY", given["google_credentials"])
    settings = Settings.from_env(given)
    assert (settings.publisher_source, settings.google_key) == ("TEAM_SOURCE", "TEAM_KEY")
    assert isinstance(settings.publisher_source, dg.EnvVar)
    of_service = Settings.from_env({"service_sources": {"green": given["source"], "fhv": "tlc"}})
    assert of_service.publisher_service_sources == {"green": "TEAM_SOURCE", "fhv": "tlc"}
    assert isinstance(of_service.publisher_service_sources["green"], dg.EnvVar)
    assert "hunter2" not in repr(of_service)
    assert isinstance(settings.google_key, dg.EnvVar)


# --- reads of the environment -----------------------------------------------------------------------------------------

FOREIGN = ("DAGSTER_HOME", "ARROW_DEFAULT_MEMORY_POOL")
READERS = {"environ", "environb", "getenv", "getenvb", "EnvVar", "BaseSettings", "expandvars"}


def environment_reads(source: str) -> list[str]:
    """Return the expressions of a module that read the environment, except variables of Dagster and pyarrow."""
    found = []
    tree = ast.parse(source)
    for parent in ast.walk(tree):
        for node in ast.iter_child_nodes(parent):
            names = {
                ast.Attribute: lambda node: [node.attr],
                ast.Name: lambda node: [node.id],
                ast.ImportFrom: lambda node: [alias.name for alias in node.names],
            }.get(type(node), lambda _node: [])(node)
            if READERS & set(names) and not _is_foreign(ast.unparse(_call_around(tree, node))):
                found.append(ast.unparse(node))
    return found


def _is_foreign(call: str) -> bool:
    return any(repr(name) in call for name in FOREIGN)


def _call_around(tree: ast.AST, node: ast.AST) -> ast.AST:
    calls = [call for call in ast.walk(tree) if isinstance(call, ast.Call) and node in ast.walk(call.func)]
    return calls[-1] if calls else node


@pytest.mark.parametrize(
    "line",
    [
        "import os; os.environ['TAXI_LAKE']",
        "import os; os.getenv('TAXI_LAKE')",
        "import os as o; o.environ.get('X')",
        "from os import environ",
        "from os import getenv as g",
        "dg.EnvVar('X').get_value()",
        "class S(BaseSettings): pass",
    ],
)
def test_environment_reads_finds_every_way_to_read_the_environment(line: str) -> None:
    assert environment_reads(line)


def test_only_settings_py_reads_the_environment() -> None:
    assert not environment_reads("os.environ.get('DAGSTER_HOME')")
    readers = {str(path.relative_to(REPOSITORY)) for path in PLATFORM_MODULES if environment_reads(path.read_text())}
    # The others read variables of Google's client, and those that dagster.yaml names.
    others = {"taxi_assets/resources/google.py", "taxi_assets/cli/doctor/instance.py"}
    assert readers == {"taxi_assets/settings.py", *others}


@pytest.mark.parametrize(("value", "expected"), [("all", None), ("", None), (" 0 ", 0), ("12", 12)])
def test_the_number_of_kept_revisions_is_all_or_a_number(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: int | None
) -> None:
    monkeypatch.setenv("TAXI_KEEP_REVISIONS", value)
    assert Settings.from_env().keep_revisions == expected


@pytest.mark.parametrize("value", ["-1", "none", "1.5", "²"])
def test_another_number_of_revisions_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TAXI_KEEP_REVISIONS", value)
    with pytest.raises(SettingsError, match=f"^TAXI_KEEP_REVISIONS='{value}' is not accepted. Use all, or the number"):
        Settings.from_env()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", None),
        ("sqlite:////srv/catalog.db", "sqlite:////srv/catalog.db"),
        ("sqlite:////srv/a:b@c/catalog.db", "sqlite:////srv/a:b@c/catalog.db"),
        ("https://catalog.example.com/iceberg", "https://catalog.example.com/iceberg"),
        ("thrift://metastore:9083", "thrift://metastore:9083"),
        ("postgresql+psycopg2://taxi@db:5432/catalog", "postgresql+psycopg2://taxi@db:5432/catalog"),
        ("glue", "glue"),
        ("bigquery", "bigquery"),
    ],
)
def test_catalog_addresses(value: str, expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_CATALOG", value)
    assert Settings.from_env().catalog == expected


def test_the_path_of_a_catalog_is_relative_to_the_working_directory_or_the_project(here: Path) -> None:
    given = {"catalog": "sqlite:///data/catalog.db"}
    assert Settings.from_env(given).catalog == f"sqlite:///{here}/data/catalog.db"
    project = here / "project"
    assert Settings.from_env(given, project_root=project).catalog == f"sqlite:///{project}/data/catalog.db"


def test_an_invalid_catalog_is_one_line_with_the_accepted_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = error_lines(monkeypatch, TAXI_CATALOG="catalog.db")
    assert line.startswith("TAXI_CATALOG='catalog.db' is not accepted. Use sqlite:///relative/path.db or sqlite:////")


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://taxi:hidden-1@db/catalog",
        "postgresql+psycopg2://taxi:hidden-1/x@db/catalog",
        "postgresql://taxi:hidden-1@x@db/catalog",
        "https://hidden-1@catalog.example.com",
    ],
)
def test_a_password_in_the_address_of_a_catalog_is_refused_and_not_shown(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = error_lines(monkeypatch, TAXI_CATALOG=address)
    assert "It contains a secret. Put it into pyiceberg's own configuration" in line
    assert "hidden-1" not in line


def test_a_catalog_without_pyiceberg_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taxi_assets.addresses.find_spec", {"pyiceberg": None}.__getitem__)
    (line,) = error_lines(monkeypatch, TAXI_CATALOG="sqlite:///catalog.db")
    assert line.endswith("is not accepted. It needs pyiceberg: pip install 'taxi-assets[iceberg]'")

"""A file with run config is validated against the service's job, with one line for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from taxi_assets.cli.run_config_file import RunConfigFile
from taxi_assets.errors import RunConfigError
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets_tests.pipeline_harness import Deployment

if TYPE_CHECKING:
    import dagster as dg

OPTIONS = ("allow_other_months", "allow_same_file", "maximum_share_unreadable", "revision", "rules")
RULES = ", ".join(rule.name for rule in SERVICES["green"].rules)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> dg.JobDefinition:
    return Deployment(tmp_path_factory.mktemp("deployment"), "sample").definitions().resolve_job_def("green")


def read(folder: Path, content: str | bytes) -> RunConfigFile:
    path = folder / "month.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return RunConfigFile.read(path)


def messages(folder: Path, content: str, job: dg.JobDefinition) -> list[str]:
    """Return the mistakes of a file, each without its beginning and its class name."""
    start, end = f"The run config {folder / 'month.yaml'}, ", " [RunConfigError]"
    texts = [str(error) for error in read(folder, content).validate(job)]
    assert all(text.startswith(start) and text.endswith(end) and "\n" not in text for text in texts)
    return [text.removeprefix(start).removesuffix(end) for text in texts]


@pytest.mark.parametrize(
    "content",
    [
        "ops: {clean_green: {config: {rules: []}}}",
        '{"ops": {"raw__green_trips": {"config": {"force": true}}}}',
        "ops:\n  clean_green:\n    config: &none {rules: [zero_passengers]}\n",
        "ops: {clean_green: {config: {rules: null}}, raw__green_trips: {}, warehouse__green_trips: {config: }}",
        "loggers: {console: {config: {log_level: ERROR}}}",
        "resources: {publisher: {config: {source: sample}}}",
        "{}",
    ],
)
def test_every_valid_run_config_of_the_job_is_accepted(tmp_path: Path, job: dg.JobDefinition, content: str) -> None:
    assert messages(tmp_path, content, job) == []


def test_the_config_is_what_the_file_says(tmp_path: Path) -> None:
    file = read(tmp_path, "ops:\n  clean_green:\n    config:\n      rules: [2021-01-01, 'no']\n")
    assert file.config == {"ops": {"clean_green": {"config": {"rules": ["2021-01-01", "no"]}}}}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            "ops:\n  clean_gren:\n    config: {rules: []}\n",
            "line 2: ops.clean_gren is unknown. Use one of these names: clean_green, raw__green_trips.",
        ),
        (
            "ops:\n  clean_yellow:\n    config: {rules: []}\n",
            "line 2: ops.clean_yellow is unknown. Use one of these names: clean_green, raw__green_trips.",
        ),
        (
            "ops:\n  clean_green:\n    config:\n      rule: []\n",
            "line 4: ops.clean_green.config.rule is unknown. Use one of these names: " + ", ".join(OPTIONS) + ".",
        ),
        (
            "ops:\n  clean_green:\n    config:\n      rules:\n      - zero_passengers\n      - few\n",
            f"line 6: ops.clean_green.config.rules[1] is 'few', which is unknown. Use one of these names: {RULES}.",
        ),
        (
            "ops:\n  clean_green:\n    rules: []\n",
            "line 3: ops.clean_green.rules is unknown. Use one of these names: config.",
        ),
        ("op: {}\n", "line 1: op is unknown. Use one of these names: loggers, ops, resources."),
        (
            "# none\nops:\n",
            "line 2: ops is None, not a mapping. Use one of these names: clean_green, raw__green_trips.",
        ),
        (
            "ops:\n  check_clean_green: {config: {rules: []}}\n",
            "line 2: ops.check_clean_green.config.rules is unknown. Delete it: there are no options here.",
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_place_its_cause_and_the_known_names(
    tmp_path: Path, job: dg.JobDefinition, content: str, expected: str
) -> None:
    assert messages(tmp_path, content, job) == [expected]


def test_a_value_of_the_wrong_type_is_reported_with_the_message_of_dagster(
    tmp_path: Path, job: dg.JobDefinition
) -> None:
    (text,) = messages(tmp_path, "ops: {raw__green_trips: {config: {force: perhaps}}}", job)
    assert text.startswith("line 1: ops.raw__green_trips.config.force has a value that is not accepted: ")
    assert 'Value "perhaps"' in text
    assert text.endswith('expected type "Bool". Correct the value.')


def test_all_mistakes_are_reported_in_the_order_of_the_file(tmp_path: Path, job: dg.JobDefinition) -> None:
    content = "ops:\n  raw__green: {}\n  clean_green:\n    config:\n      rules: [few]\n  warehouse: {}\nop: {}\n"
    places = [text.split(" is ")[0] for text in messages(tmp_path, content, job)]
    assert places == [
        "line 2: ops.raw__green",
        "line 5: ops.clean_green.config.rules[0]",
        "line 6: ops.warehouse",
        "line 7: op",
    ]


def test_an_entry_that_would_have_no_effect_is_rejected(tmp_path: Path, job: dg.JobDefinition) -> None:
    content = "ops:\n  warehouse__green_trips:\n    config: {force: true}\nexecution:\n  config: {}\n"
    assert messages(tmp_path, content, job) == [
        "line 3: ops.warehouse__green_trips.config has no effect: the op has no options. Delete it.",
        "line 4: execution has no effect: the backfill's own processes run the steps. Delete it.",
    ]


def test_a_variable_that_is_not_set_is_named(tmp_path: Path, job: dg.JobDefinition) -> None:
    (text,) = messages(tmp_path, "ops: {raw__green_trips: {config: {force: {env: NOT_SET}}}}", job)
    assert 'environment variable "NOT_SET" which is not set' in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", " is empty. Begin it with `ops:`"),
        ("# ops: {}\n", " is empty. Begin it with `ops:`"),
        ("- ops\n", " is not a mapping. Begin it with `ops:`"),
        ("rules", " is not a mapping. Begin it with `ops:`"),
        ("ops:\n  a: [\n", ", line 3, is not valid YAML: "),
        ("ops: {}\n---\nops: {}\n", ", line 2, is not valid YAML: but found another document."),
        ("ops: !rules []", ", line 1, is not valid YAML: could not determine a constructor for the tag '!rules'."),
        (b"ops: \xff", " is not valid YAML: invalid start byte."),
        ("ops: \x01", " is not valid YAML: special characters are not allowed."),
        ("ops:\n  a: {}\nops:\n  b: {}\n", ", line 3: the name ops appears twice. Write each name once"),
        ("ops:\n  - a: 1\n    a: 2\n", ", line 3: the name a appears twice. Write each name once"),
        ("ops: {2021: {}}", ", line 1: the name 2021 is not a text."),
    ],
)
def test_a_file_that_is_not_a_mapping_of_names_is_rejected(tmp_path: Path, content: str | bytes, expected: str) -> None:
    with pytest.raises(RunConfigError) as error:
        read(tmp_path, content)
    assert str(error.value).startswith(f"The run config {tmp_path / 'month.yaml'}{expected}")


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    for path, reason in [(tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")]:
        with pytest.raises(RunConfigError) as error:
            RunConfigFile.read(Path(path))
        assert error.value.problem == f"The run config {path} cannot be read: {reason}."

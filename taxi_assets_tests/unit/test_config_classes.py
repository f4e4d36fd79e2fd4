"""Run config classes: the launchpad shows every field's description, default and allowed values."""

from typing import Any

import dagster as dg
import pytest

from taxi_assets.assets.run_config import RawConfig, cleaning_config
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services.registry import SERVICES

every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=lambda service: service.name)


def run(config_class: Any, config: dict[str, Any]) -> Any:
    """Run a step with a config class; return the config that the step got."""
    received = []

    @dg.op(name="step")
    def step(config: config_class) -> None:
        received.append(config)

    @dg.job
    def job() -> None:
        step()

    loggers = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    job.execute_in_process(run_config={"ops": {"step": {"config": config}}} | loggers)
    return received[0]


@every_service
def test_the_launchpad_shows_the_rules_with_their_meaning_and_all_are_the_default(service: Service) -> None:
    field: Any = cleaning_config(service).to_fields_dict()["rules"]
    names = [rule.name for rule in service.rules]
    assert field.default_value == names
    assert not field.is_required
    for rule in service.rules:
        assert f"- {rule.name}: {rule.description}" in field.description
    (enum,) = [type_ for type_ in field.config_type.type_iterator() if type_.kind.name == "ENUM"]
    assert [value.config_value for value in enum.enum_values] == names


def test_the_options_of_a_download_are_described_and_off_by_default() -> None:
    fields: Any = RawConfig.to_fields_dict()
    assert {name: field.default_value for name, field in fields.items()} == {
        "force": False,
        "skip_downstream_if_unchanged": False,
    }
    assert all(field.description.endswith(".") for field in fields.values())


@every_service
def test_without_run_config_all_rules_apply(service: Service) -> None:
    config_class = cleaning_config(service)
    for config in ({}, {"rules": None}):
        assert run(config_class, config).rules == [rule.name for rule in service.rules]


def test_selected_rules_arrive_as_their_names() -> None:
    config_class = cleaning_config(SERVICES["green"])
    assert run(config_class, {"rules": ["zero_passengers"]}).rules == ["zero_passengers"]
    assert run(config_class, {"rules": []}).rules == []


def test_null_means_the_default_of_a_download_option() -> None:
    config = run(RawConfig, {"force": None, "skip_downstream_if_unchanged": True})
    assert config == RawConfig(force=False, skip_downstream_if_unchanged=True)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rules": ["no_such_rule"]}, r"not in enum type green_rule \(one of: pickup_missing, .*\) got no_such_rule"),
        ({"rules": [None]}, "must not be None"),
        ({"rules": "zero_passengers"}, "must be list"),
        ({"rule": []}, 'unexpected config entry "rule"'),
    ],
)
def test_an_invalid_choice_of_rules_fails_before_the_run(config: dict[str, Any], message: str) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError, match=message):
        run(cleaning_config(SERVICES["green"]), config)


@pytest.mark.parametrize("value", ["yes", 1, []])
def test_an_option_of_a_download_that_is_not_a_boolean_fails_before_the_run(value: object) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError):
        run(RawConfig, {"force": value})

"""Settings of the automation: the times of schedules and sensors, and the delay of retries."""

from __future__ import annotations

import dagster as dg
import pytest

from taxi_assets.build import build_definitions
from taxi_assets.errors import SettingsError
from taxi_assets.settings import Settings


def test_by_default_schedules_run_on_the_first_at_five_utc_and_sensors_every_hour() -> None:
    settings = Settings.from_env()
    assert (settings.schedule_cron, settings.schedule_timezone) == ("0 5 1 * *", "UTC")
    assert (settings.publication_interval_seconds, settings.retry_delay_seconds) == (3600, 30)


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_value_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, empty: str) -> None:
    names = ["SCHEDULE_CRON", "SCHEDULE_TIMEZONE", "PUBLICATION_INTERVAL_SECONDS", "RETRY_DELAY_SECONDS"]
    names += ["NOTIFY_URLS", "NOTIFY_SUCCESS", "MAX_FILE_BYTES", "MAX_EXPANSION_RATIO"]
    unset = Settings.from_env()
    for name in (*names, "UI_URL"):
        monkeypatch.setenv(f"TAXI_{name}", empty)
    assert Settings.from_env() == unset


def test_settings_reach_schedules_sensors_and_assets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_SCHEDULE_CRON", "30 6 2 * *")
    monkeypatch.setenv("TAXI_SCHEDULE_TIMEZONE", "America/New_York")
    monkeypatch.setenv("TAXI_PUBLICATION_INTERVAL_SECONDS", "600")
    monkeypatch.setenv("TAXI_RETRY_DELAY_SECONDS", "0.5")
    repository = build_definitions(Settings.from_env()).get_repository_def()
    assert repository.get_schedule_def("green_monthly").cron_schedule == "30 6 2 * *"
    assert {schedule.execution_timezone for schedule in repository.schedule_defs} == {"America/New_York"}
    assert repository.get_sensor_def("green_publication").minimum_interval_seconds == 600
    policy = repository.assets_defs_by_key[dg.AssetKey(["raw", "green_trips"])].op.retry_policy
    assert policy is not None
    assert (policy.max_retries, policy.delay, policy.backoff) == (3, 0.5, dg.Backoff.EXPONENTIAL)


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("TAXI_SCHEDULE_CRON", "monthly", "a cron expression of five fields, such as 0 5 1 * *"),
        ("TAXI_SCHEDULE_CRON", "0 25 1 * *", "a cron expression of five fields"),
        ("TAXI_SCHEDULE_CRON", "0 5 31 2 *", "a cron expression of five fields"),
        ("TAXI_SCHEDULE_TIMEZONE", "New York", "the name of a time zone, such as UTC or America/New_York"),
        ("TAXI_SCHEDULE_TIMEZONE", "../UTC", "the name of a time zone"),
        ("TAXI_PUBLICATION_INTERVAL_SECONDS", "0", "a whole number from 1 to 604800"),
        ("TAXI_PUBLICATION_INTERVAL_SECONDS", "hourly", "a whole number from 1 to 604800"),
        ("TAXI_PUBLICATION_INTERVAL_SECONDS", "604801", "a whole number from 1 to 604800"),
        ("TAXI_RETRY_DELAY_SECONDS", "-1", "a number from 0 to 604800"),
        ("TAXI_RETRY_DELAY_SECONDS", "inf", "a number from 0 to 604800"),
        ("TAXI_RETRY_DELAY_SECONDS", "nan", "a number from 0 to 604800"),
        ("TAXI_MAX_FILE_BYTES", "0", "a whole number of at least 1"),
        ("TAXI_MAX_FILE_BYTES", "8 GB", "a whole number of at least 1"),
        ("TAXI_MAX_EXPANSION_RATIO", "-1", "a whole number of at least 1"),
        ("TAXI_RETRY_DELAY_SECONDS", "1e9", "a number from 0 to 604800"),
    ],
)
def test_an_invalid_value_raises_one_line_that_names_the_accepted_values(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, accepted: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        Settings.from_env()
    assert str(error.value).startswith(f"{name}={value!r} is not accepted. ")
    assert accepted in str(error.value)
    assert "\n" not in str(error.value)

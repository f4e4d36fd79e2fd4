"""Automation leaves a pinned month alone until a run releases it."""

from __future__ import annotations

import datetime as dt

import dagster as dg

from taxi_assets.automation.publication.run_tags import PINNED_TAG
from taxi_assets_tests.definitions.publication_harness import PublicationHarness, harness, instance
from taxi_assets_tests.definitions.test_month_conditions import AutomationHarness, defs
from taxi_assets_tests.definitions.test_publication_check import run_check

__all__ = ["defs", "harness", "instance"]

MONTH = "2021-02"
RAW, CLEAN, QUARANTINE, WAREHOUSE = (
    dg.AssetKey([layer, "green_trips"]) for layer in ("raw", "clean", "quarantine", "warehouse")
)


def pin(harness: PublicationHarness, month: str) -> None:
    """Record that a run has cleaned an older file of the month, and has loaded it."""
    harness.materialize(["clean", "green_trips"], month, {"pinned_revision": "older"})
    harness.materialize(["warehouse", "green_trips"], month, {"raw_sha256": "older"})


def test_the_sensor_requests_no_run_of_a_pinned_month_and_the_check_passes(harness: PublicationHarness) -> None:
    harness.publish("2021-01", MONTH, "2021-03", "2021-04")
    for month in ("2021-01", MONTH, "2021-03", "2021-04"):
        harness.load(month)
    pin(harness, MONTH)
    harness.now += dt.timedelta(days=1)
    assert harness.tick() == []  # the raw file is not in the warehouse, and not because a run has failed
    assert run_check(harness)[0]

    harness.publish("2021-01", MONTH)
    assert harness.requested_months() == {"2021-01": "revised"}

    harness.materialize(["clean", "green_trips"], MONTH, {})  # a run has released it
    assert MONTH in harness.requested_months()


def test_a_changed_raw_file_requests_no_month_that_is_pinned(
    defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    automation = AutomationHarness(defs, instance, dg.AssetSelection.assets(RAW, CLEAN, QUARANTINE, WAREHOUSE))
    clean = "clean/green_trips"
    for month in ("2021-01", MONTH):
        for key in (RAW, QUARANTINE, CLEAN, WAREHOUSE):
            automation.materialize(key, month, "a")
    assert automation.tick(clean) == set()

    automation.materialize_in_run([QUARANTINE, CLEAN], MONTH, "pinned", {PINNED_TAG: "0123456789ab"})
    assert automation.tick(clean) == set()

    automation.materialize_in_run([QUARANTINE, CLEAN], "2021-03", "another month", {})
    assert automation.tick(clean) == set()
    for month in ("2021-01", MONTH):
        automation.materialize(RAW, month, "b")
    assert automation.tick(clean) == {f"{clean} 2021-01"}

    automation.materialize_in_run([QUARANTINE, CLEAN], MONTH, "released", {})
    automation.tick(clean)
    automation.materialize(RAW, MONTH, "c")
    assert f"{clean} {MONTH}" in automation.tick(clean)

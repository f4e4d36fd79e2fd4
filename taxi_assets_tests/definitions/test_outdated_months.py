"""A change in the code marks the months that it affects as stale, and no others, until they are rebuilt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleCauseCategory
from dagster._core.loader import LoadingContextForTest

from taxi_assets import build
from taxi_assets.automation.outdated_months import OutdatedMonth, outdated_months
from taxi_assets.build import build_definitions
from taxi_assets.marts.mart import marts
from taxi_assets.settings import Settings
from taxi_assets.tlc import schema
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.fhv import FHV
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from taxi_assets.tlc.schema import Service

MONTHS = ("2021-01", "2021-02")
FIRST, SECOND = map(Month.parse, MONTHS)
CODE = StaleCauseCategory.CODE


class Platform:
    """A deployment with two loaded months of green taxis and one of for-hire vehicles."""

    def __init__(self, home: Path, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.settings = Settings(
            lake=str(home / "lake"),  # type: ignore[arg-type]  # read by its validators
            warehouse=f"duckdb:///{home / 'warehouse.duckdb'}",  # type: ignore[arg-type]
            source="sample",
        )
        self.service = GREEN
        self.definitions = build_definitions(self.settings)

    def change(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        """Replace the code of a service."""
        monkeypatch.setattr(build, "SERVICES", {**SERVICES, service.name: service})
        self.service = service
        self.definitions = build_definitions(self.settings)

    def run(self, service: str, month: str, rules: list[str] | None = None) -> None:
        config = {} if rules is None else {"ops": {f"clean_{service}": {"config": {"rules": rules}}}}
        job = self.definitions.resolve_job_def(service)
        assert job.execute_in_process(instance=self.instance, partition_key=month, run_config=config).success

    def report_materialization(self, month: str) -> None:
        """Report a month as materialized by hand, as the UI does."""
        key = dg.AssetKey(["clean", self.service.table])
        self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=month))

    @property
    def stale(self) -> dict[str, set[str]]:
        """The assets whose code has changed since a materialization, each with the months, as Dagster finds them."""
        graph = self.definitions.resolve_asset_graph()
        resolver = CachingStaleStatusResolver(self.instance, graph, LoadingContextForTest(self.instance))
        found: dict[str, set[str]] = {}
        for key in graph.materializable_asset_keys:
            for month in self.instance.get_materialized_partitions(key):
                if any(cause.category is CODE for cause in resolver.get_stale_causes(key, month)):
                    found.setdefault(key.to_user_string(), set()).add(month)
        return found


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with dg.DagsterInstance.ephemeral() as instance:
        platform = Platform(tmp_path, instance)
        for month in MONTHS:
            platform.run("green", month)
        platform.run("fhv", MONTHS[0])
        yield platform


def outdated(instance: dg.DagsterInstance, service: Service) -> list[Month]:
    return [found.month for found in outdated_months(instance, service)]


def with_changed_rule(service: Service) -> Service:
    """Return the service with another limit in its first rule."""
    rule, *others = service.rules
    return replace(service, rules=(replace(rule, description=f"{rule.description} The limit is new."), *others))


def test_a_changed_rule_makes_all_months_of_its_service_stale_until_they_are_rebuilt(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert platform.stale == {}
    assert outdated(platform.instance, GREEN) == []

    platform.change(with_changed_rule(GREEN), monkeypatch)
    assert platform.stale == {"clean/green_trips": {*MONTHS}, "quarantine/green_trips": {*MONTHS}}
    assert outdated(platform.instance, platform.service) == [FIRST, SECOND]
    assert outdated(platform.instance, FHV) == []

    platform.run("green", MONTHS[0])
    assert platform.stale == {"clean/green_trips": {MONTHS[1]}, "quarantine/green_trips": {MONTHS[1]}}
    assert outdated(platform.instance, platform.service) == [SECOND]


def test_a_changed_column_makes_the_warehouse_table_stale_too(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = [column for column in GREEN.columns if column.name != "ehail_fee"]
    platform.change(replace(GREEN, columns=columns), monkeypatch)
    assert platform.stale.keys() == {"clean/green_trips", "quarantine/green_trips", "warehouse/green_trips"}


def test_each_change_is_named(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *others = GREEN.rules
    changed = replace(first, description="Another limit.")
    new = replace(second, name="a_new_rule")
    columns = [column for column in GREEN.columns if column.name != "ehail_fee"]
    platform.change(replace(GREEN, rules=(changed, new, *others), columns=columns), monkeypatch)
    assert outdated_months(platform.instance, platform.service)[0] == OutdatedMonth(
        FIRST,
        (
            "The columns have changed.",
            "The rule a_new_rule is new.",
            f"The rule {second.name} was removed.",
            f"The rule {first.name} was: {first.description}",
        ),
    )
    monkeypatch.setattr(schema, "CLEANING_VERSION", schema.CLEANING_VERSION + 1)
    platform.change(replace(GREEN, rules=(second, first, *others)), monkeypatch)
    assert outdated_months(platform.instance, platform.service)[0].changes == (
        "The code that reads and cleans files has changed.",
        "The order of the rules has changed.",
    )


def test_a_changed_or_new_mart_outdates_the_months_that_have_marts(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, month in (("reference", None), ("marts", MONTHS[0])):
        job = platform.definitions.resolve_job_def(name)
        assert job.execute_in_process(instance=platform.instance, partition_key=month).success
    assert outdated_months(platform.instance, GREEN) == []
    zone_day, od_flows = marts()["zone_day"], marts()["od_flows"]
    changed = {
        "zone_day": replace(zone_day, sql=f"{zone_day.sql} -- changed"),
        "od_flows": od_flows,
        "new_mart": replace(od_flows, name="new_mart"),
    }
    monkeypatch.setattr("taxi_assets.automation.outdated_months.marts", lambda: changed)
    assert outdated_months(platform.instance, GREEN) == [
        OutdatedMonth(FIRST, ("The mart zone_day has changed.", "The mart new_mart is new."))
    ]


def test_a_month_that_was_cleaned_with_selected_rules_is_not_stale(platform: Platform) -> None:
    platform.run("green", MONTHS[0], rules=[])
    assert platform.stale == {}
    assert outdated(platform.instance, GREEN) == []


def test_a_month_that_was_reported_by_hand_is_not_stale(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.change(with_changed_rule(GREEN), monkeypatch)
    platform.report_materialization(MONTHS[0])
    assert outdated(platform.instance, platform.service) == [SECOND]
    assert platform.stale["clean/green_trips"] == {MONTHS[1]}


def test_no_months_are_stale_before_the_first_is_loaded() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert outdated(instance, GREEN) == []

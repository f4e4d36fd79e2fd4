"""The steps of a new user in the browser, from a new instance to the report of a month.

The tests depend on each other and run in this order. If TAXI_TEST_SCREENSHOTS names a folder, they save the screenshots
of the documentation there. `make screenshots` saves them in docs/images.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tenacity
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

SCREENSHOTS = os.environ.get("TAXI_TEST_SCREENSHOTS")
MONTHS = ("2021-01", "2021-02", "2021-03")
LOCATION = "/locations/taxi_assets.definitions"
BACKFILL_TIMEOUT = 240_000
"""In milliseconds, for three months and the assets that automation requests after them."""

pytestmark = pytest.mark.timeout(600)


def screenshot(page: Page, name: str) -> None:
    """Save a screenshot of the page, after its animations have ended."""
    if SCREENSHOTS:
        page.wait_for_timeout(2500)
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")


def test_the_asset_graph_shows_a_group_for_each_service_and_for_the_marts(page: Page) -> None:
    page.goto("/asset-groups")
    for group in ("yellow", "green", "fhv", "fhvhv", "reference", "marts"):
        expect(page.get_by_text(group, exact=True).first).to_be_visible()


def test_the_assets_of_a_service_are_marked_by_their_layer_and_technology(page: Page) -> None:
    page.goto(f"{LOCATION}/asset-groups/green")
    for kind in ("published", "raw", "clean", "quarantine", "warehouse", "Report", "Parquet", "DuckDB", "html"):
        expect(page.get_by_text(kind, exact=True).first).to_be_visible()


def test_the_assets_of_a_layer_are_found_by_their_tag(page: Page) -> None:
    page.goto("/assets?asset-selection=tag%3Alayer%3Dclean")
    for service in ("yellow", "green", "fhv", "fhvhv"):
        expect(page.get_by_text(f"clean / {service}_trips").first).to_be_visible()
    expect(page.get_by_text("raw / green_trips")).to_have_count(0)


def test_an_asset_shows_its_owner_its_address_and_its_layer(page: Page) -> None:
    page.goto("/assets/warehouse/green_trips?view=overview")
    for text in ("taxi-data", "DuckDB", "warehouse.taxi.green_trips", "layer: warehouse", "service: green"):
        expect(page.get_by_text(text, exact=True).first).to_be_visible()
    page.goto("/assets/raw/green_trips?view=overview")
    expect(page.get_by_text(re.compile("^file:///.*/lake/raw/green_trips$"))).to_be_visible()


def open_backfill_dialog(page: Page, first: str, last: str) -> Locator:
    """Open the dialog of the job `green`, and choose a range of months."""
    page.goto(f"{LOCATION}/jobs/green")
    page.get_by_role("button", name=re.compile("Materialize all")).click()
    dialog = page.get_by_role("dialog").filter(has_text="Launch runs to materialize")
    months = dialog.get_by_placeholder(re.compile("ex: "))
    months.fill(f"[{first}...{last}]")
    months.press("Enter")
    return dialog


def test_a_backfill_of_three_months_is_launched_from_the_job(page: Page) -> None:
    dialog = open_backfill_dialog(page, MONTHS[0], MONTHS[-1])
    expect(page.get_by_text("Green taxi: downloads one month, cleans it")).to_be_visible()
    expect(dialog.get_by_text("3 partitions")).to_be_visible()
    screenshot(page, "backfill")
    dialog.get_by_role("button", name="Launch backfill").click()
    expect(dialog).to_be_hidden()


def test_the_runs_of_the_backfill_succeed_and_show_their_logs(page: Page) -> None:
    page.goto("/runs?q%5B0%5D=job%3Agreen")
    page.get_by_text("Show runs within backfills").click()
    expect(page.get_by_text("Success", exact=True)).to_have_count(len(MONTHS), timeout=BACKFILL_TIMEOUT)
    page.locator("a[href^='/runs/']").filter(has_text=re.compile(r"^[0-9a-f]{8}$")).first.click()
    expect(page.get_by_text("row_counts_reconcile").first).to_be_visible()


def test_only_the_months_of_the_backfill_are_materialized(page: Page) -> None:
    page.goto(f"/assets/warehouse/green_trips?view=partitions&partition={MONTHS[0]}")
    expect(page.get_by_text(f"Materialized ({len(MONTHS)})")).to_be_visible()
    page.get_by_text(re.compile(r"Missing \(\d+\)")).click()  # hide the missing months
    for month in MONTHS:
        expect(page.get_by_text(month, exact=True).first).to_be_visible()
    expect(page.get_by_text("No partition selected")).to_be_hidden()
    expect(page.get_by_text("dagster/partition_row_count").first).to_be_visible()
    screenshot(page, "partitions")


def test_a_raw_asset_shows_the_columns_of_the_published_file(page: Page) -> None:
    page.goto("/assets/raw/green_trips?view=overview")
    expect(page.get_by_text("lpep_pickup_datetime", exact=True).first).to_be_visible()


def test_a_table_is_described_column_by_column(page: Page) -> None:
    page.goto("/assets/warehouse/green_trips?view=overview")
    expect(page.get_by_text("The clean trips as a table to query").first).to_be_visible()
    expect(page.get_by_text("Total charged to the passenger, without cash tips").first).to_be_visible()


def test_the_numbers_of_a_month_are_shown_with_its_materialization(page: Page) -> None:
    page.goto("/assets/clean/green_trips?view=events")
    expect(page.get_by_text("quarantined_percent").first).to_be_visible()


def test_automation_materializes_the_marts(page: Page) -> None:
    page.goto("/assets/marts/zone_day?view=partitions")
    expect(page.get_by_text(f"Materialized ({len(MONTHS)})")).to_be_visible(timeout=BACKFILL_TIMEOUT)


def test_the_report_opens_from_the_page_of_its_asset(page: Page) -> None:
    page.goto("/assets/reports/green_trips?view=partitions")
    expect(page.get_by_text(f"Materialized ({len(MONTHS)})")).to_be_visible(timeout=BACKFILL_TIMEOUT)
    page.goto(f"/assets/reports/green_trips?view=partitions&partition={MONTHS[-1]}")
    page.get_by_text("[Show Markdown]").first.click()
    report = page.get_by_role("dialog")
    for heading in ("Green taxi, March 2021", "Comparison", "Payment types", "Data quality"):
        expect(report.get_by_role("heading", name=heading, exact=True)).to_be_visible()
    expect(report.get_by_role("cell", name="Trips per day", exact=True)).to_be_visible()
    expect_chart(page)
    screenshot(page, "report")


def test_the_quality_of_all_months_is_shown_in_one_chart(page: Page) -> None:
    page.goto("/assets/quality/month_quality?view=events")
    page.get_by_text("[Show Markdown]").first.click(timeout=BACKFILL_TIMEOUT)
    expect_chart(page)


def expect_chart(page: Page) -> None:
    """Expect a chart in the open dialog."""
    chart = page.locator("img[src^='data:image/png;base64,']").first
    expect(chart).to_be_visible()
    assert chart.evaluate("image => image.naturalWidth") > 300


def test_run_config_applies_to_every_month_of_a_backfill(page: Page) -> None:
    dialog = open_backfill_dialog(page, MONTHS[0], MONTHS[1])
    dialog.get_by_text("Config", exact=True).click()
    dialog.get_by_role("button", name="Add config").click()
    editor = page.get_by_role("dialog").filter(has_text="Config Editor")
    editor.locator(".CodeMirror").first.click()
    page.keyboard.insert_text("ops: {clean_green: {config: {rules: []}}}")
    editor.get_by_role("button", name="Save config").click()
    expect(editor).to_be_hidden()
    expect(dialog.get_by_text("Config saved")).to_be_visible()
    dialog.get_by_role("button", name="Launch backfill").click()
    expect(dialog).to_be_hidden()
    query = '{runsOrError(filter: {pipelineName: "green"}) {... on Runs {results {status runConfigYaml}}}}'
    for attempt in tenacity.Retrying(wait=tenacity.wait_fixed(1), stop=tenacity.stop_after_delay(240)):
        with attempt:
            answer = page.request.post("/graphql", data={"query": query}).json()
            runs = answer["data"]["runsOrError"]["results"]
            assert [run["status"] for run in runs if "rules: []" in run["runConfigYaml"]] == ["SUCCESS", "SUCCESS"]

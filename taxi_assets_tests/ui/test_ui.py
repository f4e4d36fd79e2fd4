"""What a newcomer does in the browser, from a fresh instance to a month's report.

The tests are one walk, in this order. With TAXI_TEST_SCREENSHOTS set to a folder they leave there the pictures that the
documents show: `make screenshots` puts them into docs/images.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

SCREENSHOTS = os.environ.get("TAXI_TEST_SCREENSHOTS")
MONTHS = ("2021-01", "2021-02", "2021-03")
LOCATION = "/locations/taxi_assets.definitions"
A_BACKFILL = 240_000
"""Milliseconds that three months may take, beside the daemon."""

pytestmark = pytest.mark.timeout(600)


def picture(page: Page, name: str) -> None:
    """Keep a picture of the page, once it stands still."""
    if SCREENSHOTS:
        page.wait_for_timeout(2500)
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")


def test_the_lineage_leads_from_each_service_to_the_marts(page: Page) -> None:
    page.goto("/asset-groups")
    for group in ("yellow", "green", "fhv", "fhvhv", "reference", "marts"):
        expect(page.get_by_text(group, exact=True).first).to_be_visible()


def test_the_shelves_of_a_service_can_be_told_apart(page: Page) -> None:
    page.goto(f"{LOCATION}/asset-groups/green")
    for kind in ("published", "raw", "clean", "quarantine", "warehouse", "Report"):
        expect(page.get_by_text(kind, exact=True).first).to_be_visible()


def test_a_backfill_of_three_months_is_launched_from_the_job(page: Page) -> None:
    page.goto(f"{LOCATION}/jobs/green")
    expect(page.get_by_text("Green taxi: fetch a month, clean it, load it, check it")).to_be_visible()
    page.get_by_role("button", name=re.compile("Materialize all")).click()
    dialog = page.get_by_role("dialog")
    months = dialog.get_by_placeholder(re.compile("ex: "))
    months.fill(f"[{MONTHS[0]}...{MONTHS[-1]}]")
    months.press("Enter")
    expect(dialog.get_by_text("3 partitions")).to_be_visible()
    picture(page, "backfill")
    dialog.get_by_role("button", name="Launch backfill").click()
    expect(dialog).to_be_hidden()


def test_its_runs_end_well_and_their_logs_can_be_read(page: Page) -> None:
    page.goto("/runs?q%5B0%5D=job%3Agreen")
    page.get_by_text("Show runs within backfills").click()
    expect(page.get_by_text("Success", exact=True)).to_have_count(len(MONTHS), timeout=A_BACKFILL)
    page.locator("a[href^='/runs/']").filter(has_text=re.compile(r"^[0-9a-f]{8}$")).first.click()
    expect(page.get_by_text("row_counts_reconcile").first).to_be_visible()


def test_the_months_of_an_asset_are_materialized_and_the_others_are_not(page: Page) -> None:
    page.goto(f"/assets/warehouse/green_trips?view=partitions&partition={MONTHS[0]}")
    expect(page.get_by_text(f"Materialized ({len(MONTHS)})")).to_be_visible()
    page.get_by_text(re.compile(r"Missing \(\d+\)")).click()  # leave them out
    for month in MONTHS:
        expect(page.get_by_text(month, exact=True).first).to_be_visible()
    expect(page.get_by_text("No partition selected")).to_be_hidden()
    expect(page.get_by_text("dagster/partition_row_count").first).to_be_visible()
    picture(page, "partitions")


def test_a_table_is_described_column_by_column(page: Page) -> None:
    page.goto("/assets/warehouse/green_trips?view=overview")
    expect(page.get_by_text("The clean trips as a table to query").first).to_be_visible()
    expect(page.get_by_text("All that was charged; without cash tips").first).to_be_visible()


def test_the_numbers_of_a_table_are_plotted_over_its_months(page: Page) -> None:
    page.goto("/assets/clean/green_trips?view=events")
    expect(page.get_by_text("quarantined_percent").first).to_be_visible()


def test_the_marts_follow_by_themselves(page: Page) -> None:
    page.goto("/assets/marts/zone_day?view=partitions")
    expect(page.get_by_text(f"Materialized ({len(MONTHS)})")).to_be_visible(timeout=A_BACKFILL)


def test_the_report_shows_its_picture(page: Page) -> None:
    page.goto("/assets/reports/green_trips?view=partitions")
    expect(page.get_by_text(f"Materialized ({len(MONTHS)})")).to_be_visible(timeout=A_BACKFILL)
    page.goto(f"/assets/reports/green_trips?view=partitions&partition={MONTHS[-1]}")
    page.get_by_text("[Show Markdown]").first.click()
    shown = page.locator("img[src^='data:image/png;base64,']").first
    expect(shown).to_be_visible()
    assert shown.evaluate("image => image.naturalWidth") > 300
    picture(page, "report")

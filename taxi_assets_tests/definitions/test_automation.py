"""What is asked for, and what is not, after a month upstream was materialized."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pytest

from taxi_assets.addresses import DuckDBAddress, FolderAddress
from taxi_assets.build import build_definitions
from taxi_assets.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MONTH = "2013-09"
CHAIN = ("raw", "clean", "quarantine", "warehouse")
HEADER = "VendorID,lpep_pickup_datetime,Lpep_dropoff_datetime,Store_and_fwd_flag,RateCodeID,Passenger_count,"
HEADER += "Trip_distance,Fare_amount,Extra,MTA_tax,Tip_amount,Tolls_amount,Total_amount,Payment_type"
ROW = "2,2013-09-0{day} 08:14:37,2013-09-0{day} 09:09:06,N,1,1,2.5,21.25,0,0,0,0,21.25,2"


class Story:
    """A folder that publishes one month, an instance, and the ticks of the automation sensor."""

    def __init__(self, home: Path, instance: dg.DagsterInstance) -> None:
        self.file = home / "published" / f"green_tripdata_{MONTH}.csv"
        self.file.parent.mkdir()
        self.publish(rows=3)
        self.instance = instance
        self.defs = build_definitions(
            Settings(
                lake=FolderAddress(folder=home / "lake"),
                warehouse=DuckDBAddress(file=home / "warehouse.duckdb"),
                source=str(self.file.parent),
            )
        )
        self.cursor: dg.AssetDaemonCursor | None = None

    def publish(self, *, rows: int) -> None:
        lines = [HEADER, *(ROW.format(day=day + 1) for day in range(rows))]
        self.file.write_text("\n".join(lines) + "\n")

    def materialize(self, *shelves: str) -> None:
        result = self.defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            partition_key=MONTH,
            asset_selection=[dg.AssetKey([shelf, "green_trips"]) for shelf in shelves],
        )
        assert result.success

    def tick(self) -> set[str]:
        result = dg.evaluate_automation_conditions(defs=self.defs, instance=self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        asked = set()
        for key in self.defs.resolve_asset_graph().get_all_asset_keys():
            partitions = result.get_requested_partitions(key)
            asked |= {f"{key.to_user_string()} {partition}" for partition in partitions}
        return asked


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Story(tmp_path, instance)


def test_switched_on_over_loaded_months_it_asks_for_nothing(story: Story) -> None:
    story.materialize(*CHAIN)
    assert story.tick() == set()
    assert story.tick() == set()


def test_a_run_of_the_whole_chain_asks_for_nothing_more(story: Story) -> None:
    story.tick()
    story.materialize(*CHAIN)
    assert story.tick() == set()


def test_the_same_bytes_published_again_ask_for_nothing(story: Story) -> None:
    story.materialize(*CHAIN)
    story.tick()
    story.publish(rows=3)  # a new modification time, and so a new ETag
    story.materialize("raw")
    assert story.tick() == set()


def test_other_bytes_ask_for_the_same_month_downstream(story: Story) -> None:
    story.materialize(*CHAIN)
    story.tick()
    story.publish(rows=4)
    story.materialize("raw")
    assert story.tick() == {f"clean/green_trips {MONTH}", f"quarantine/green_trips {MONTH}"}

    story.materialize("clean", "quarantine")
    assert story.tick() == {f"warehouse/green_trips {MONTH}"}

    story.materialize("warehouse")
    assert story.tick() == set()

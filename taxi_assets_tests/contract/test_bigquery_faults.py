"""Every HTTP call of a load into BigQuery, answered by every kind of failure, with and without effect.

The calls are recorded from a load without faults, so that a new call is tested, too.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb
import pytest

from taxi_assets.errors import TaxiAssetsError
from taxi_assets.marts.mart import marts
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.bigquery_fixtures import clients_wait_a_hundredth, lake, load
from taxi_assets_tests.contract.mart_trips import ZONES
from taxi_assets_tests.contract.stores.bigquery import DATASET, open_warehouse
from taxi_assets_tests.contract.test_bigquery_expiration import DAY
from taxi_assets_tests.google.bigquery import BigQuery, Fault, Request
from taxi_assets_tests.table_rows import store_rows
from taxi_assets_tests.trips import MONTH, publish_generated_month

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from taxi_assets.storage.lake.gcs_lake import GcsLake
    from taxi_assets.storage.lake.objects import ParquetPartition
    from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse
    from taxi_assets_tests.google.service_account import ServiceAccount

__all__ = ["clients_wait_a_hundredth", "lake"]

_KINDS = {
    "no answer": Fault(hang=True),
    "a dropped connection": Fault(reset=True),
    **{str(status): Fault(status=status) for status in (404, 409, 429, 500, 503, 504)},
}
FAULTS = {
    f"{name}, {'with' if after else 'without'} effect": dataclasses.replace(fault, after=after)
    for name, fault in _KINDS.items()
    for after in (False, True)
}
# A request is repeated after one of these, so the load succeeds.
RETRIED = [fault for fault in FAULTS.values() if fault.status not in {404, 409, 504}]


@dataclass
class Loads:
    """Loads of one month, each by a new process of a new run."""

    double: BigQuery
    account: ServiceAccount
    _numbers: Iterator[int]

    def warehouse(self) -> BigQueryWarehouse:
        return open_warehouse(self.double.environment, self.account.base64, timeout_seconds=0.5)

    def load(self, trips: ParquetPartition) -> None:
        load(self.warehouse(), trips, f"run-{next(self._numbers)}")

    def calls(self, trips: ParquetPartition) -> list[str]:
        """Load, and return the calls in order; those of jobs with the table that the job writes."""
        known = len(self.double.requests)
        self.load(trips)
        return [call_name(request) for request in self.double.requests[known:]]

    def stored(self) -> tuple[int, int]:
        """Return how many rows the month has, and the sum of their `source_row`; both are 0 without a table."""
        query = f"SELECT count(*), coalesce(sum(source_row), 0) FROM {DATASET}.green_trips WHERE data_month = ?"
        try:
            ((rows, source_rows),) = self.double.sql(query, [MONTH.start])
        except duckdb.CatalogException:
            return 0, 0
        return rows, source_rows

    def try_load(self, trips: ParquetPartition) -> TaxiAssetsError | None:
        """Load, and return the error."""
        try:
            self.load(trips)
        except TaxiAssetsError as error:
            return error
        return None

    def restore(self, trips: ParquetPartition | None) -> None:
        """Load a version; None deletes the dataset."""
        if trips is not None:
            self.load(trips)
            return
        with self.warehouse().api.get_client() as client:
            client.delete_dataset(DATASET, delete_contents=True, not_found_ok=True)

    def require_truth(self, versions: Sequence[ParquetPartition | None]) -> None:
        """Require that the month is one of the versions, and that the ledger names this one or none."""
        stored = self.stored()
        held = [trips for trips in versions if _totals(trips) == stored]
        assert held, stored
        loaded = self.warehouse().loaded_month(GREEN, MONTH)
        if loaded is not None:
            assert loaded.data_version in [trips.report.data_version for trips in held if trips is not None]


def call_name(request: Request) -> str:
    job = (request.body or {}).get("configuration", {}).get("load", {})
    path = re.sub(r"taxi_assets-(.*)-[0-9a-f]{24}-\d+|job_\w+", r"\1", request.path)
    return f"{request.method} {path} {job.get('destinationTable', {}).get('tableId', '')}"


@contextmanager
def naming(call: str) -> Iterator[None]:
    """Add the name of the broken call to an error."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"The broken call: {call}")
        raise


def _totals(trips: ParquetPartition | None) -> tuple[int, int]:
    return (0, 0) if trips is None else (trips.report.clean.rows, trips.report.clean.source_rows)


@pytest.fixture
def loads(bigquery: BigQuery, service_account: ServiceAccount) -> Loads:
    return Loads(bigquery, service_account, itertools.count())


@pytest.fixture
def versions(lake: GcsLake) -> dict[str, ParquetPartition]:
    """Two versions of the month, and one without rows."""
    return {
        "old": publish_generated_month(lake, rows=12),
        "new": publish_generated_month(lake, rows=9, seed=1, layer="newer"),
        "empty": publish_generated_month(lake, rows=0, layer="empty"),
    }


def break_call(loads: Loads, number: int, old: ParquetPartition | None, new: ParquetPartition, fault: Fault) -> None:
    """Replace the old version by the new one, while a call is answered by the fault; then run once more."""
    loads.double.script(*[Fault()] * number, fault)
    error = loads.try_load(new)
    if fault in RETRIED:
        assert error is None
    if error is None:
        assert loads.stored() == _totals(new)
    loads.require_truth([old, new])
    loads.double.settle()
    loads.require_truth([old, new])
    loads.load(new)
    assert loads.stored() == _totals(new)
    assert loads.warehouse().loaded_month(GREEN, MONTH) is not None
    loads.require_truth([new])


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_whichever_call_fails_the_ledger_is_true_and_the_next_run_recovers(
    loads: Loads, versions: dict[str, ParquetPartition], fault: Fault
) -> None:
    old, new = versions["old"], versions["new"]
    loads.load(new)
    for number, call in enumerate(loads.calls(old)):
        with naming(call):
            break_call(loads, number, old, new, fault)
        old, new = new, old


# A load makes these calls only sometimes. The other faults are repeated in the same way as in the test above.
SELECTED = {name: fault for name, fault in FAULTS.items() if fault.status not in {429, 500, 503}}


@pytest.mark.parametrize("fault", SELECTED.values(), ids=SELECTED)
@pytest.mark.parametrize("kind", ["of an empty month", "of a first load", "of an upload"])
def test_whichever_other_call_fails_the_ledger_is_true_and_the_next_run_recovers(
    loads: Loads, versions: dict[str, ParquetPartition], tmp_path: Path, kind: str, fault: Fault
) -> None:
    loads.load(versions["old"])
    usual = loads.calls(versions["new"])
    folder = LocalLake(folder=str(tmp_path))
    old: ParquetPartition | None = versions["old"]
    new = versions["empty"] if kind == "of an empty month" else versions["new"]
    if kind == "of an upload":
        old, new = publish_generated_month(folder, rows=12), publish_generated_month(folder, rows=9, layer="newer")
        usual = [call for call in usual if "upload" not in call or "green_trips_loads" in call]
    if kind == "of a first load":
        old = None
    loads.restore(old)
    others = [(number, call) for number, call in enumerate(loads.calls(new)) if call not in usual]
    assert others
    for number, call in others:
        loads.restore(old)
        with naming(call):
            break_call(loads, number, old, new, fault)


LOST = {name: FAULTS[f"{name}, with effect"] for name in ("a dropped connection", "404", "503", "504")}


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
@pytest.mark.parametrize("kind", ["of a table", "of a first table", "of a mart", "of a first mart"])
def test_whichever_answer_of_another_replacement_is_lost_it_succeeds_or_the_next_one_does(
    loads: Loads, versions: dict[str, ParquetPartition], kind: str, fault: Fault
) -> None:
    loads.load(versions["new"])
    store_rows(loads.warehouse(), "taxi_zones", ZONES)  # the mart reads it
    is_first, is_mart = "first" in kind, "mart" in kind
    mart = marts()["od_flows"]
    name = mart.name if is_mart else "taxi_zones"

    def replace() -> None:
        if is_mart:
            loads.warehouse().replace_mart(mart, MONTH, [GREEN], run_id=uuid.uuid4().hex)
        else:
            store_rows(loads.warehouse(), name, ZONES)

    def reset() -> None:
        if is_first:
            with loads.warehouse().api.get_client() as client:
                client.delete_table(f"{DATASET}.{name}", not_found_ok=True)

    with loads.warehouse().api.get_client() as client:
        dataset = client.get_dataset(DATASET)
        dataset.default_table_expiration_ms = dataset.default_partition_expiration_ms = 90_000 * DAY
        client.update_dataset(dataset, ["default_table_expiration_ms", "default_partition_expiration_ms"])
    replace()
    reset()
    known = len(loads.double.requests)
    replace()
    calls = [call_name(request) for request in loads.double.requests[known:]]
    assert is_first == any(call.startswith("PATCH") for call in calls)
    rows = loads.double.rows(f"{DATASET}.{name}")
    for number, call in enumerate(calls):
        reset()
        loads.double.script(*[Fault()] * number, fault)
        with naming(call):
            try:
                replace()
            except TaxiAssetsError:
                assert fault not in RETRIED
                loads.double.settle()
                replace()
            assert sorted(loads.double.rows(f"{DATASET}.{name}")) == sorted(rows)
            assert "expirationTime" not in loads.double.table(DATASET, name)
            assert "expirationMs" not in loads.double.table(DATASET, name).get("timePartitioning", {})


def test_a_read_whose_answer_never_comes_is_repeated(loads: Loads, versions: dict[str, ParquetPartition]) -> None:
    loads.load(versions["new"])

    def read() -> int:
        warehouse = loads.warehouse()
        return len(warehouse.read_month(GREEN, MONTH)) + warehouse.totals(GREEN, MONTH).rows

    known = len(loads.double.requests)
    assert read() == 2 * versions["new"].rows
    calls = [call_name(request) for request in loads.double.requests[known:]]
    assert any("/queries/" in call for call in calls)
    for number, call in enumerate(calls):
        loads.double.script(*[Fault()] * number, Fault(hang=True))
        with naming(call):
            assert read() == 2 * versions["new"].rows

"""Every query in docs/questions.md has the same result in every database."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from taxi_assets.marts.mart import marts
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.contract.mart_trips import ZONES, Trips, publish_trips, trips_of
from taxi_assets_tests.contract.stores import duckdb as duckdb_store
from taxi_assets_tests.table_rows import store_rows

if TYPE_CHECKING:
    from taxi_assets.storage.warehouse.base_warehouse import Warehouse
    from taxi_assets_tests.contract.stores import WarehouseBackend

MONTHS = {Month(2021, 1): 600, Month(2021, 2): 200}
LICENSES = ("HV0002", "HV0003", "HV0003", "HV0003", "HV0004", "HV0005", "HV0005")
DOCUMENT = (REPOSITORY / "docs/questions.md").read_text()
QUERIES = dict(re.findall(r"^## (\d+\. .*?)$.*?```sql\n(.*?)```", DOCUMENT, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def warehouse(shared_warehouse: WarehouseBackend) -> Warehouse:
    """The warehouse to test, with data."""
    return fill(shared_warehouse)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """A DuckDB warehouse with the same data, whose results the others must have."""
    folder = tmp_path_factory.mktemp("reference")
    return fill(duckdb_store.backend(folder, partial(LocalLake, folder=str(folder / "lake"))))


def fill(backend: WarehouseBackend) -> Warehouse:
    """Load two months of all services and their marts."""
    warehouse, lake = backend.open(), backend.open_lake()
    store_rows(warehouse, "taxi_zones", ZONES)
    for month, count in MONTHS.items():
        for service in SERVICES.values():
            trips = (
                with_licenses(trips_of(service, month, count))
                if service.name == "fhvhv"
                else trips_of(service, month, count)
            )
            warehouse.replace_month(service, month, publish_trips(lake, service, month, trips), run_id="a run")
        for mart in marts().values():
            warehouse.replace_mart(mart, month, mart.services, run_id="a run")
    return warehouse


def with_licenses(trips: Trips) -> Trips:
    """Return the trips with a license number of a company each."""
    return [{**trip, "hvfhs_license_num": LICENSES[i % len(LICENSES)]} for i, trip in enumerate(trips)]


def results(warehouse: Warehouse, query: str) -> list[dict[str, Any]]:
    """Return the rows sorted in Python: databases sort nulls differently."""
    rows = [{name: plain(value) for name, value in row.items()} for row in warehouse.query_native(query).to_pylist()]
    return sorted(rows, key=repr)


def plain(value: Any) -> Any:
    """Round numbers to six digits, whatever their type in the database."""
    return f"{float(value):.6g}" if isinstance(value, int | float | Decimal) else value


def test_the_document_has_ten_queries() -> None:
    assert len(QUERIES) == 10
    assert DOCUMENT.count("```sql") == 10  # each has its own heading


@pytest.mark.parametrize("question", QUERIES)
def test_a_query_has_the_same_result_in_every_database(
    warehouse: Warehouse, reference: Warehouse, question: str
) -> None:
    # On the real service, each run has a dataset of its own.
    dataset = getattr(warehouse, "dataset", "taxi")
    found = results(warehouse, re.sub(r"\btaxi\.", f"{dataset}.", QUERIES[question]))
    assert found == results(reference, QUERIES[question])
    assert len(found) > 1
    assert all(any(row[name] is not None for row in found) for name in found[0])

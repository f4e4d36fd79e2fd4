"""The checks on a mart: its key is one, and it adds up to the trips that it was made from."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import dagster as dg
import pandas as pd

from taxi_assets.assets.marts import mart_key
from taxi_assets.failures import as_failures
from taxi_assets.marts.mart import Mart
from taxi_assets.partitions import partitions_of_all
from taxi_assets.storage.warehouse import Warehouse
from taxi_assets.tlc.month import Month

_QUOTED = 5


def mart_checks(mart: Mart, retry: dg.RetryPolicy | None = None) -> dg.AssetChecksDefinition:
    """Both, in the warehouse."""
    key = mart_key(mart)
    keys, sums = ", ".join(mart.key), ", ".join(mart.measures)

    @dg.multi_asset_check(
        specs=[
            dg.AssetCheckSpec(
                "key_is_unique",
                asset=key,
                blocking=True,
                partitions_def=partitions_of_all(),
                description=f"No two rows of the month have the same {keys}.",
            ),
            dg.AssetCheckSpec(
                "adds_up",
                asset=key,
                blocking=True,
                partitions_def=partitions_of_all(),
                description=f"The month's {sums} are those of the trips of every service that is loaded, to the cent.",
            ),
        ],
        name=f"check_{mart.name}",
        retry_policy=retry,
    )
    def checks(context: dg.AssetCheckExecutionContext, warehouse: Warehouse) -> Iterator[dg.AssetCheckResult]:
        month = Month.parse(context.partition_key)
        with as_failures(), warehouse.session():
            results = _key_is_unique(warehouse, mart, month), _adds_up(warehouse, mart, month)
        yield from results

    return checks


def _key_is_unique(warehouse: Warehouse, mart: Mart, month: Month) -> dg.AssetCheckResult:
    keys = ", ".join(mart.key)
    doubled = warehouse.ask(
        f"SELECT {keys}, COUNT(*) AS rows_of_key FROM {mart.name} "  # noqa: S608  (of our own names)
        f"WHERE data_month = CAST('{month.start}' AS DATE) GROUP BY {keys} HAVING COUNT(*) > 1 LIMIT {_QUOTED}"
    )
    quoted = "; ".join(", ".join(map(str, row)) for row in doubled[list(mart.key)].itertuples(index=False))
    return dg.AssetCheckResult(
        check_name="key_is_unique",
        passed=doubled.empty,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"Several rows have the same {keys}: {quoted}." if quoted else f"One row for each {keys}.",
    )


def _adds_up(warehouse: Warehouse, mart: Mart, month: Month) -> dg.AssetCheckResult:
    sums = ", ".join(f"SUM({measure}) AS {measure}" for measure in mart.measures)
    services = [service for service in mart.services if warehouse.loaded(service, month) is not None]
    of_mart = warehouse.ask(
        f"SELECT service, {sums} FROM {mart.name} "  # noqa: S608  (of our own names)
        f"WHERE data_month = CAST('{month.start}' AS DATE) GROUP BY service"
    )
    of_trips = (
        warehouse.ask(f"SELECT service, {sums} FROM all_trips GROUP BY service", services=services, months=[month])  # noqa: S608  (of our own names)
        if services
        else of_mart.iloc[:0]
    )
    found, wanted = _by_service(of_mart), _by_service(of_trips)
    wrong = [
        f"{service} {measure}: {found.get(service, {}).get(measure)}, its trips have {sums_of.get(measure)}"
        for service in sorted({*found, *wanted})
        for measure in mart.measures
        if found.get(service, {}).get(measure) != (sums_of := wanted.get(service, {})).get(measure)
    ]
    said = "; ".join(wrong[:_QUOTED])
    return dg.AssetCheckResult(
        check_name="adds_up",
        passed=not wrong,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"Not what the trips add up to: {said}. Materialize the month again."
        if wrong
        else f"{', '.join(mart.measures)} are those of the trips of {', '.join(sorted(wanted)) or 'no service'}.",
        metadata={
            f"{service}_{measure}": float(value)
            for service, sums_of in found.items()
            for measure, value in sums_of.items()
            if value is not None
        },
    )


def _by_service(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    return {
        row["service"]: {
            str(name): None if pd.isna(value) else Decimal(str(value))
            for name, value in row.items()
            if name != "service"
        }
        for row in frame.to_dict("records")
    }

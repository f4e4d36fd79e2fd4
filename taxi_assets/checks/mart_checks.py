"""The checks on a mart: its key is unique, and its totals match the trips."""

from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any

import dagster as dg
import pandas as pd

from taxi_assets.marts.mart import Mart, MartMonth
from taxi_assets.partitions import all_services_partitions
from taxi_assets.storage.warehouse.base_warehouse import Warehouse
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import ColumnType

_MAX_LISTED = 5


def mart_check_specs(mart: Mart, key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """Return the specs of a mart's checks; without `totals_match_trips` if the mart has no reconciled measures."""
    descriptions = {"key_is_unique": f"No two rows of the month have the same {', '.join(mart.key)}."}
    if mart.reconciled_measures:
        sums = ", ".join(mart.reconciled_measures)
        descriptions["totals_match_trips"] = (
            f"For every loaded service, the month's totals of {sums} equal those of the trips, to the cent."
        )
    return [
        dg.AssetCheckSpec(
            name, asset=key, blocking=True, partitions_def=all_services_partitions(), description=description
        )
        for name, description in descriptions.items()
    ]


def evaluate_mart(
    warehouse: Warehouse,
    mart: Mart,
    month: Month,
    names: Collection[str],
    *,
    computed: MartMonth | None,
    run_id: str,
) -> list[dg.AssetCheckResult]:
    """Evaluate checks on a month that is in the warehouse.

    Args:
        warehouse: Contains the mart and the trips.
        mart: The mart.
        month: The month to check.
        names: The checks to evaluate.
        computed: The inputs of the month that this run has just computed; None if this run only checks the mart.
        run_id: The ID of this run.

    Returns:
        One result per name. A failed `totals_match_trips` is a warning if other runs have loaded trips in the meantime.
    """
    checks = {"key_is_unique": _key_is_unique, "totals_match_trips": _totals_match_trips}
    results = [check(warehouse, mart, month) for name, check in checks.items() if name in names]
    return [
        _superseded(result, _runs_that_loaded_since(warehouse, computed, run_id))
        if computed is not None and result.check_name == "totals_match_trips" and not result.passed
        else result
        for result in results
    ]


def _key_is_unique(warehouse: Warehouse, mart: Mart, month: Month) -> dg.AssetCheckResult:
    keys = ", ".join(mart.key)
    duplicates = warehouse.read_portable_frame(
        f"SELECT {keys}, COUNT(*) AS rows_of_key FROM {mart.name} "  # noqa: S608  (names from the mart's definition)
        f"WHERE data_month = CAST('{month.start}' AS DATE) GROUP BY {keys} HAVING COUNT(*) > 1 LIMIT {_MAX_LISTED}"
    )
    quoted = "; ".join(", ".join(map(str, row)) for row in duplicates[list(mart.key)].itertuples(index=False))
    return dg.AssetCheckResult(
        check_name="key_is_unique",
        passed=duplicates.empty,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"Several rows have the same {keys}: {quoted}." if quoted else f"There is one row for each {keys}.",
    )


def _runs_that_loaded_since(warehouse: Warehouse, computed: MartMonth, run_id: str) -> list[str]:
    """Return the other runs that have loaded trips of the month since the mart was computed."""
    services = computed.mart.services
    if warehouse.loaded_versions(services, computed.month) == computed.versions:
        return []
    loaded = [warehouse.loaded_month(service, computed.month) for service in services]
    return sorted({month.run_id for month in loaded if month is not None} - {run_id, ""})


def _superseded(result: dg.AssetCheckResult, runs: Sequence[str]) -> dg.AssetCheckResult:
    """Return the result as a warning if other runs have replaced the trips since the mart was computed."""
    if not runs:
        return result
    return result._replace(
        severity=dg.AssetCheckSeverity.WARN,
        description="The trips of this month have been replaced since the mart was computed, by the runs "
        f"{', '.join(runs)}. Materialize the mart again, unless automation does. Current result: {result.description}",
        metadata={**result.metadata, "replacing_runs": dg.MetadataValue.json([*runs])},
    )


def _totals_match_trips(warehouse: Warehouse, mart: Mart, month: Month) -> dg.AssetCheckResult:
    sums = ", ".join(f"SUM({measure}) AS {measure}" for measure in mart.reconciled_measures)
    service_column, groups = ("service", "GROUP BY service") if mart.has_service else ("'all' AS service", "")
    services = [service for service in mart.services if warehouse.wait_for_loaded_month(service, month) is not None]
    of_mart = warehouse.read_portable_frame(
        f"SELECT {service_column}, {sums} FROM {mart.name} "  # noqa: S608  (names from the mart's definition)
        f"WHERE data_month = CAST('{month.start}' AS DATE) {groups}"
    )
    query = f"SELECT {service_column}, {sums} FROM all_trips {groups}"  # noqa: S608  (names from the mart's definition)
    of_trips = warehouse.read_portable_frame(query, services=services, months=[month]) if services else of_mart.iloc[:0]
    found, expected = _by_service(of_mart), _by_service(of_trips)
    wrong = [
        f"{service} {measure}: {found.get(service, {}).get(measure)} in the mart, {sums_of.get(measure)} in the trips"
        for service in sorted({*found, *expected})
        for measure in mart.reconciled_measures
        if found.get(service, {}).get(measure) != (sums_of := expected.get(service, {})).get(measure)
    ]
    message = "; ".join(wrong[:_MAX_LISTED])
    return dg.AssetCheckResult(
        check_name="totals_match_trips",
        passed=not wrong,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"The totals differ from those of the trips: {message}. Materialize the month again. "
        "If the mart's query leaves out trips on purpose, write `counts: some` in its header."
        if wrong
        else f"The totals of {', '.join(mart.reconciled_measures)} equal those of the trips of "
        f"{', '.join(sorted(expected)) or 'no service'}.",
        metadata=_totals_metadata(mart, found),
    )


def _totals_metadata(mart: Mart, totals: Mapping[str, Mapping[str, Decimal | None]]) -> dict[str, float]:
    """Return each total by service and measure, such as "green_trips" and "green_revenue_dollars"."""
    columns = {column.name: column for column in mart.columns}
    shown: dict[str, float] = {}
    for service, sums in totals.items():
        for measure, total in sums.items():
            column = columns[measure]
            unit = "_dollars" if column.unit == "US dollars" else ""
            if total is not None:
                is_count = column.type is ColumnType.INTEGER
                shown[f"{service}_{measure}{unit}"] = int(total) if is_count else float(total)
    return shown


def _by_service(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    return {
        row["service"]: {
            str(name): None if pd.isna(value) else Decimal(str(value))
            for name, value in row.items()
            if name != "service"
        }
        for row in frame.to_dict("records")
    }

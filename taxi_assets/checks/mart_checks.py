"""The checks on a mart: its key is one, and what it says of all trips adds up to theirs."""

from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Any

import dagster as dg
import pandas as pd

from taxi_assets.marts.mart import Mart, MartMonth
from taxi_assets.partitions import partitions_of_all
from taxi_assets.storage.warehouse.base_warehouse import Warehouse
from taxi_assets.tlc.month import Month

_MAX_LISTED = 5


def mart_check_specs(mart: Mart, key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """Of both checks, or of that of the key alone where the mart has no measures of all trips."""
    promises = {"key_is_unique": f"No two rows of the month have the same {', '.join(mart.key)}."}
    if mart.reconciled_measures:
        sums = ", ".join(mart.reconciled_measures)
        promises["totals_match_trips"] = (
            f"The month's {sums} are those of the trips of every service that is loaded, to the cent."
        )
    return [
        dg.AssetCheckSpec(name, asset=key, blocking=True, partitions_def=partitions_of_all(), description=description)
        for name, description in promises.items()
    ]


def evaluate_mart(
    warehouse: Warehouse,
    mart: Mart,
    month: Month,
    names: Collection[str],
    *,
    made: MartMonth | None,
    run_id: str,
) -> list[dg.AssetCheckResult]:
    """Evaluate checks on a month that is in the warehouse.

    Args:
        warehouse: Holds the mart and the trips.
        mart: The mart.
        month: Its month.
        names: Which checks to evaluate.
        made: What this run has just made the month of; None if the mart is checked without being made.
        run_id: This run.

    Returns:
        One result per name. A failed `totals_match_trips` is a warning if other runs have loaded trips since `made`.
    """
    checks = {"key_is_unique": _key_is_unique, "totals_match_trips": _totals_match_trips}
    results = [check(warehouse, mart, month) for name, check in checks.items() if name in names]
    return [
        _superseded(result, _runs_that_loaded_since(warehouse, made, run_id))
        if made is not None and result.check_name == "totals_match_trips" and not result.passed
        else result
        for result in results
    ]


def _key_is_unique(warehouse: Warehouse, mart: Mart, month: Month) -> dg.AssetCheckResult:
    keys = ", ".join(mart.key)
    doubled = warehouse.read_portable_frame(
        f"SELECT {keys}, COUNT(*) AS rows_of_key FROM {mart.name} "  # noqa: S608  (of our own names)
        f"WHERE data_month = CAST('{month.start}' AS DATE) GROUP BY {keys} HAVING COUNT(*) > 1 LIMIT {_MAX_LISTED}"
    )
    quoted = "; ".join(", ".join(map(str, row)) for row in doubled[list(mart.key)].itertuples(index=False))
    return dg.AssetCheckResult(
        check_name="key_is_unique",
        passed=doubled.empty,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"Several rows have the same {keys}: {quoted}." if quoted else f"One row for each {keys}.",
    )


def _runs_that_loaded_since(warehouse: Warehouse, made: MartMonth, run_id: str) -> list[str]:
    """Return the other runs that have loaded trips of the month since a mart was made of them."""
    services = made.mart.services
    if warehouse.loaded_versions(services, made.month) == made.versions:
        return []
    loaded = [warehouse.loaded_month(service, made.month) for service in services]
    return sorted({held.run_id for held in loaded if held is not None} - {run_id, ""})


def _superseded(result: dg.AssetCheckResult, runs: Sequence[str]) -> dg.AssetCheckResult:
    """A warning in place of an error, if other runs have replaced the trips since the mart was made of them."""
    if not runs:
        return result
    return result._replace(
        severity=dg.AssetCheckSeverity.WARN,
        description="The trips of this month have been replaced since the mart was made of them; those loaded now are "
        f"of the runs {', '.join(runs)}. Materialize the mart again, unless automation does. Until then: "
        f"{result.description}",
        metadata={**result.metadata, "replaced_by_runs": dg.MetadataValue.json([*runs])},
    )


def _totals_match_trips(warehouse: Warehouse, mart: Mart, month: Month) -> dg.AssetCheckResult:
    sums = ", ".join(f"SUM({measure}) AS {measure}" for measure in mart.reconciled_measures)
    whole, groups = ("service", "GROUP BY service") if mart.has_service else ("'all' AS service", "")
    services = [service for service in mart.services if warehouse.loaded_month_after_wait(service, month) is not None]
    of_mart = warehouse.read_portable_frame(
        f"SELECT {whole}, {sums} FROM {mart.name} "  # noqa: S608  (of our own names)
        f"WHERE data_month = CAST('{month.start}' AS DATE) {groups}"
    )
    query = f"SELECT {whole}, {sums} FROM all_trips {groups}"  # noqa: S608  (names from the mart's definition)
    of_trips = warehouse.read_portable_frame(query, services=services, months=[month]) if services else of_mart.iloc[:0]
    found, wanted = _by_service(of_mart), _by_service(of_trips)
    wrong = [
        f"{service} {measure}: {found.get(service, {}).get(measure)}, its trips have {sums_of.get(measure)}"
        for service in sorted({*found, *wanted})
        for measure in mart.reconciled_measures
        if found.get(service, {}).get(measure) != (sums_of := wanted.get(service, {})).get(measure)
    ]
    message = "; ".join(wrong[:_MAX_LISTED])
    return dg.AssetCheckResult(
        check_name="totals_match_trips",
        passed=not wrong,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"Not what the trips add up to: {message}. Materialize the month again."
        if wrong
        else f"{', '.join(mart.reconciled_measures)} are those of the trips of {', '.join(sorted(wanted)) or 'no service'}.",
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

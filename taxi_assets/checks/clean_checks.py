"""Checks on the clean trips of a month: no row is lost, and the month is plausible.

`row_counts_reconcile` blocks downstream assets. The clean step makes the same comparison before it writes the
month. The other checks only warn.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dagster as dg

from taxi_assets.automation.step_failures import as_failures
from taxi_assets.checks.concurrent_runs import Replacement, compare_when_settled, newest_replacements
from taxi_assets.metadata import percent
from taxi_assets.partitions import monthly_partitions
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake.objects import ParquetPartition, RawFile, object_prefix
from taxi_assets.storage.lake.revisions import Revisions
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Service

WARN_SHARE_QUARANTINED = 0.05
"""The check `share_quarantined` warns above this share of quarantined rows."""
ROW_COUNT_RANGE = (0.5, 2.0)
"""The expected number of rows, relative to the median of the neighboring months.

Seasonal changes stay well within this range. Less than half a file does not.
"""
_NEIGHBORING_MONTHS = 2


def clean_checks(service: Service, retry: dg.RetryPolicy | None = None) -> dg.AssetChecksDefinition:
    """Return one step with all checks on a service's clean trips."""
    asset = dg.AssetKey(["clean", service.table])
    partitions = monthly_partitions(service)

    def spec(name: str, description: str, *, blocking: bool = False) -> dg.AssetCheckSpec:
        return dg.AssetCheckSpec(
            name, asset=asset, description=description, blocking=blocking, partitions_def=partitions
        )

    @dg.multi_asset_check(
        name=f"check_clean_{service.name}",
        retry_policy=retry,
        specs=[
            spec(
                "row_counts_reconcile",
                "Every row of the published file is either a clean trip or in quarantine. Both assets come from that "
                "file.",
                blocking=True,
            ),
            spec("share_quarantined", f"At most {WARN_SHARE_QUARANTINED:.0%} of the rows are in quarantine."),
            spec(
                "row_count_in_range",
                f"The number of clean rows is {ROW_COUNT_RANGE[0]:g} to {ROW_COUNT_RANGE[1]:g} times the median of the "
                f"{_NEIGHBORING_MONTHS} months before and the {_NEIGHBORING_MONTHS} after. Months that are not in the "
                "lake are ignored.",
            ),
            spec("every_day_present", "Every day of the month has trips."),
            spec(
                "no_unknown_columns",
                "Every column of the file is in the schema. Unknown columns are left out of the clean trips.",
            ),
        ],
    )
    def check_clean(context: dg.AssetCheckExecutionContext, lake: Lake) -> Iterator[dg.AssetCheckResult]:
        month = Month.parse(context.partition_key)
        with as_failures(retry_number=context.retry_number):
            reconciled, clean = _row_counts_reconcile(context, lake, service, month)
            yield reconciled
            yield _share_quarantined(clean)
            yield _row_count_in_range(lake, service, month, clean)
            yield _every_day_present(month, clean)
            yield _no_unknown_columns(service, clean)

    return check_clean


@dataclass(frozen=True)
class _Layers:
    """A month's layers, read one after the other. They can differ in version if another run writes in between."""

    raw: RawFile
    quarantine: ParquetPartition
    clean: ParquetPartition

    @property
    def same_version(self) -> bool:
        return self.clean.report.data_version == self.quarantine.report.data_version

    @property
    def same_raw_file(self) -> bool:
        return self.clean.report.raw_sha256 == self.raw.record.sha256

    @property
    def same_rows(self) -> bool:
        return self.raw.record.rows == self.clean.rows + self.quarantine.rows

    @property
    def agree(self) -> bool:
        return self.same_version and self.same_raw_file and self.same_rows


def _row_counts_reconcile(
    context: dg.AssetCheckExecutionContext, lake: Lake, service: Service, month: Month
) -> tuple[dg.AssetCheckResult, ParquetPartition]:
    """Return the result, and the clean partition that the other checks use."""
    keys = {name: dg.AssetKey([name, service.table]) for name in ("raw", "quarantine", "clean")}

    def read() -> _Layers:
        raw = RawFile.get(lake, object_prefix("raw", service, month))
        quarantine, clean = (
            ParquetPartition.get(lake, object_prefix(layer, service, month)) for layer in ("quarantine", "clean")
        )
        if clean.report.pinned:
            raw = Revisions.of(lake, service, month).find(clean.report.raw_sha256)
        return _Layers(raw, quarantine, clean)

    def find_replacements(layers: _Layers) -> Sequence[Replacement]:
        if layers.agree:
            return []
        versions = {
            **({} if layers.clean.report.pinned else {"raw": layers.raw.record.sha256}),
            "quarantine": layers.quarantine.report.data_version,
            "clean": layers.clean.report.data_version,
        }
        return newest_replacements(context, {keys[name]: version for name, version in versions.items()})

    settled = compare_when_settled(context, keys["clean"], read, find_replacements)
    layers = settled.compared
    raw, clean, quarantine = layers.raw, layers.clean, layers.quarantine
    if not layers.same_version:
        message = (
            "The clean trips and the quarantine have different versions: a run ended after it had written only one "
            "of them. Materialize the month again."
        )
    elif not layers.same_raw_file:
        message = "The clean trips come from a different file than the one in raw. Materialize the month again."
    else:
        message = f"{raw.record.rows:,} raw rows, {clean.rows:,} clean + {quarantine.rows:,} quarantined."
        if not layers.same_rows:
            message += " These must be equal. Materialize the month again."
    result = dg.AssetCheckResult(
        check_name="row_counts_reconcile",
        passed=layers.agree,
        severity=settled.severity,
        description=settled.describe(message),
        metadata={
            "rows_raw": raw.record.rows,
            "rows_clean": clean.rows,
            "rows_quarantined": quarantine.rows,
            **settled.metadata,
        },
    )
    return result, clean


def _share_quarantined(clean: ParquetPartition) -> dg.AssetCheckResult:
    share = clean.report.share_quarantined
    return dg.AssetCheckResult(
        check_name="share_quarantined",
        passed=share <= WARN_SHARE_QUARANTINED,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{share:.2%} of the rows are in quarantine.",
        metadata={"quarantined_percent": percent(share)},
    )


def _row_count_in_range(lake: Lake, service: Service, month: Month, clean: ParquetPartition) -> dg.AssetCheckResult:
    shifts = [shift for shift in range(-_NEIGHBORING_MONTHS, _NEIGHBORING_MONTHS + 1) if shift]
    found = [ParquetPartition.find(lake, object_prefix("clean", service, month.shift(shift))) for shift in shifts]
    neighbors = {other.report.month: other.rows for other in found if other is not None and other.rows}
    if not neighbors:
        passed, message = True, "The lake has none of the neighboring months to compare with."
    else:
        ratio = clean.rows / statistics.median(neighbors.values())
        passed = ROW_COUNT_RANGE[0] <= ratio <= ROW_COUNT_RANGE[1]
        message = f"{clean.rows:,} rows: {ratio:.2f} times the median of {', '.join(neighbors)}."
    return dg.AssetCheckResult(
        check_name="row_count_in_range", passed=passed, severity=dg.AssetCheckSeverity.WARN, description=message,
        metadata={"rows_clean": clean.rows, "rows_of_neighboring_months": neighbors},
    )  # fmt: skip


def _every_day_present(month: Month, clean: ParquetPartition) -> dg.AssetCheckResult:
    missing = [f"{month}-{day:02d}" for day, rows in enumerate(clean.report.rows_by_day, start=1) if rows == 0]
    return dg.AssetCheckResult(
        check_name="every_day_present",
        passed=not missing,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"No trips on {', '.join(missing)}." if missing else f"All {month.days} days have trips.",
        metadata={"missing_days": missing},
    )


def _no_unknown_columns(service: Service, clean: ParquetPartition) -> dg.AssetCheckResult:
    unknown = clean.report.unknown_columns
    names = ", ".join(column.name for column in unknown)
    return dg.AssetCheckResult(
        check_name="no_unknown_columns",
        passed=not unknown,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Columns that are not in the schema of {service.name} were left out: {names}. Add them in "
        f"tlc/services/{service.name}.py."
        if unknown
        else "Every column of the file is in the schema.",
        metadata={
            "unknown_columns": [column.model_dump() for column in unknown],
            "absent_columns": clean.report.missing_columns(service),
        },
    )

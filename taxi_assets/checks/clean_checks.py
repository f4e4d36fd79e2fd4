"""Checks on the clean trips of a month: is every row accounted for, and does the month look like one.

The first one guards what is downstream; cleaning itself has verified it before publishing. The others warn.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dagster as dg

from taxi_assets.automation.step_failures import as_failures
from taxi_assets.checks.concurrent_runs import Replacement, compare_when_settled, newest_replacements
from taxi_assets.partitions import monthly_partitions
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake.objects import ParquetPartition, RawFile, object_prefix
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Service

WARN_SHARE_QUARANTINED = 0.05
# A month's volume against the median of the months around it. Seasons stay well within; a file cut in half does not.
ROW_COUNT_RANGE = (0.5, 2.0)
_MONTHS_AROUND = 2


def clean_checks(service: Service, retry: dg.RetryPolicy | None = None) -> dg.AssetChecksDefinition:
    """One step with all checks on a service's clean trips."""
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
                "Rows of the published file = clean rows + quarantined rows, and both halves come from that file.",
                blocking=True,
            ),
            spec("share_quarantined", f"At most {WARN_SHARE_QUARANTINED:.0%} of the rows are quarantined."),
            spec(
                "row_count_in_range",
                f"The clean rows are {ROW_COUNT_RANGE[0]:g} to {ROW_COUNT_RANGE[1]:g} times the median of the months around, "
                "as far as these are in the lake.",
            ),
            spec("every_day_present", "Every day of the month has trips."),
            spec(
                "no_unknown_columns", "The file has no column that the schema does not know; such a column is kept out."
            ),
        ],
    )
    def check_clean(context: dg.AssetCheckExecutionContext, lake: Lake) -> Iterator[dg.AssetCheckResult]:
        month = Month.parse(context.partition_key)
        with as_failures(retry_number=context.retry_number):
            conserved, clean = _row_counts_reconcile(context, lake, service, month)
            yield conserved
            yield _share_quarantined(clean)
            yield _row_count_in_range(lake, service, month, clean)
            yield _every_day_present(month, clean)
            yield _no_unknown_columns(service, clean)

    return check_clean


@dataclass(frozen=True)
class _Layers:
    """What the lake holds of a month, read one after the other: another run may publish in between."""

    raw: RawFile
    quarantine: ParquetPartition
    clean: ParquetPartition

    @property
    def same_pair(self) -> bool:
        return self.clean.report.data_version == self.quarantine.report.data_version

    @property
    def same_file(self) -> bool:
        return self.clean.report.raw_sha256 == self.raw.record.sha256

    @property
    def all_rows(self) -> bool:
        return self.raw.record.rows == self.clean.rows + self.quarantine.rows

    @property
    def agree(self) -> bool:
        return self.same_pair and self.same_file and self.all_rows


def _row_counts_reconcile(
    context: dg.AssetCheckExecutionContext, lake: Lake, service: Service, month: Month
) -> tuple[dg.AssetCheckResult, ParquetPartition]:
    """The check's result, and the clean month that it is about."""
    keys = {name: dg.AssetKey([name, service.table]) for name in ("raw", "quarantine", "clean")}

    def read() -> _Layers:
        return _Layers(
            RawFile.get(lake, object_prefix("raw", service, month)),
            ParquetPartition.get(lake, object_prefix("quarantine", service, month)),
            ParquetPartition.get(lake, object_prefix("clean", service, month)),
        )

    def find_replacements(layers: _Layers) -> Sequence[Replacement]:
        if layers.agree:
            return []
        held = {
            "raw": layers.raw.record.sha256,
            "quarantine": layers.quarantine.report.data_version,
            "clean": layers.clean.report.data_version,
        }
        return newest_replacements(context, {keys[name]: version for name, version in held.items()})

    settled = compare_when_settled(context, keys["clean"], read, find_replacements)
    layers = settled.compared
    raw, clean, quarantine = layers.raw, layers.clean, layers.quarantine
    if not layers.same_pair:
        message = "Clean and quarantine do not belong together: a run ended between them. Materialize the month again."
    elif not layers.same_file:
        message = "The clean rows come from another file than the raw one held now. Materialize the month again."
    else:
        message = f"{raw.record.rows:,} raw rows, {clean.rows:,} clean + {quarantine.rows:,} quarantined."
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
        description=f"{share:.2%} of the rows are quarantined.",
        metadata={"share_quarantined": share},
    )


def _row_count_in_range(lake: Lake, service: Service, month: Month, clean: ParquetPartition) -> dg.AssetCheckResult:
    shifts = [shift for shift in range(-_MONTHS_AROUND, _MONTHS_AROUND + 1) if shift]
    around = [ParquetPartition.find(lake, object_prefix("clean", service, month.shift(shift))) for shift in shifts]
    rows = {half.report.month: half.rows for half in around if half is not None and half.rows}
    if not rows:
        passed, message = True, "None of the months around is in the lake."
    else:
        ratio = clean.rows / statistics.median(rows.values())
        passed = ROW_COUNT_RANGE[0] <= ratio <= ROW_COUNT_RANGE[1]
        message = f"{clean.rows:,} rows: {ratio:.2f} times the median of {', '.join(rows)}."
    return dg.AssetCheckResult(
        check_name="row_count_in_range", passed=passed, severity=dg.AssetCheckSeverity.WARN, description=message,
        metadata={"rows": clean.rows, "rows_around": rows},
    )  # fmt: skip


def _every_day_present(month: Month, clean: ParquetPartition) -> dg.AssetCheckResult:
    missing = [f"{month}-{day:02d}" for day, rows in enumerate(clean.report.rows_by_day, start=1) if rows == 0]
    return dg.AssetCheckResult(
        check_name="every_day_present",
        passed=not missing,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"No trips on {', '.join(missing)}." if missing else f"All {month.days} days have trips.",
        metadata={"days_missing": missing},
    )


def _no_unknown_columns(service: Service, clean: ParquetPartition) -> dg.AssetCheckResult:
    unknown = clean.report.unknown_columns
    names = ", ".join(column.name for column in unknown)
    return dg.AssetCheckResult(
        check_name="no_unknown_columns",
        passed=not unknown,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Kept out, because the schema of {service.name} (tlc/services/) does not know them: {names}."
        if unknown
        else "Every column of the file is known.",
        metadata={
            "unknown_columns": [column.model_dump() for column in unknown],
            "absent_columns": list(clean.report.absent_columns),
        },
    )

"""Checks on the clean trips of a month: is every row accounted for, and does the month look like one.

The first one guards what is downstream; cleaning itself has verified it before publishing. The others warn.
"""

import statistics
from collections.abc import Iterator

import dagster as dg

from taxi_assets.failures import as_failures
from taxi_assets.partitions import monthly_partitions
from taxi_assets.storage.lake import Lake
from taxi_assets.storage.shelves import ParquetMonth, PublishedFile, stem_of
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Service

WARN_SHARE_QUARANTINED = 0.05
# A month's volume against the median of the months around it. Seasons stay well within; a file cut in half does not.
USUAL_VOLUME = (0.5, 2.0)
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
                "rows_conserved",
                "Rows of the published file = clean rows + quarantined rows, and both halves come from that file.",
                blocking=True,
            ),
            spec("share_quarantined", f"At most {WARN_SHARE_QUARANTINED:.0%} of the rows are quarantined."),
            spec(
                "usual_volume",
                f"The clean rows are {USUAL_VOLUME[0]:g} to {USUAL_VOLUME[1]:g} times the median of the months around, "
                "as far as these are in the lake.",
            ),
            spec("every_day_present", "Every day of the month has trips."),
            spec("columns_known", "The file has no column that the schema does not know; such a column is kept out."),
        ],
    )
    def check_clean(context: dg.AssetCheckExecutionContext, lake: Lake) -> Iterator[dg.AssetCheckResult]:
        month = Month.parse(context.partition_key)
        with as_failures():
            clean = ParquetMonth.get(lake, stem_of("clean", service, month))
            yield _rows_conserved(lake, service, month, clean)
            yield _share_quarantined(clean)
            yield _usual_volume(lake, service, month, clean)
            yield _every_day_present(month, clean)
            yield _columns_known(service, clean)

    return check_clean


def _rows_conserved(lake: Lake, service: Service, month: Month, clean: ParquetMonth) -> dg.AssetCheckResult:
    raw = PublishedFile.get(lake, stem_of("raw", service, month))
    quarantine = ParquetMonth.get(lake, stem_of("quarantine", service, month))
    same_pair = clean.report.data_version == quarantine.report.data_version
    same_file = clean.report.raw_sha256 == raw.record.sha256
    adds_up = raw.record.rows == clean.rows + quarantine.rows
    if not same_pair:
        said = "Clean and quarantine do not belong together: a run ended between them. Materialize the month again."
    elif not same_file:
        said = "The clean rows come from another file than the raw one held now. Materialize the month again."
    else:
        said = f"{raw.record.rows:,} raw rows, {clean.rows:,} clean + {quarantine.rows:,} quarantined."
    return dg.AssetCheckResult(
        check_name="rows_conserved",
        passed=same_pair and same_file and adds_up,
        severity=dg.AssetCheckSeverity.ERROR,
        description=said,
        metadata={"rows_raw": raw.record.rows, "rows_clean": clean.rows, "rows_quarantined": quarantine.rows},
    )


def _share_quarantined(clean: ParquetMonth) -> dg.AssetCheckResult:
    share = clean.report.share_quarantined
    return dg.AssetCheckResult(
        check_name="share_quarantined",
        passed=share <= WARN_SHARE_QUARANTINED,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{share:.2%} of the rows are quarantined.",
        metadata={"share_quarantined": share},
    )


def _usual_volume(lake: Lake, service: Service, month: Month, clean: ParquetMonth) -> dg.AssetCheckResult:
    shifts = [shift for shift in range(-_MONTHS_AROUND, _MONTHS_AROUND + 1) if shift]
    around = [ParquetMonth.find(lake, stem_of("clean", service, month.shift(shift))) for shift in shifts]
    rows = {half.report.month: half.rows for half in around if half is not None and half.rows}
    if not rows:
        passed, said = True, "None of the months around is in the lake."
    else:
        ratio = clean.rows / statistics.median(rows.values())
        passed = USUAL_VOLUME[0] <= ratio <= USUAL_VOLUME[1]
        said = f"{clean.rows:,} rows: {ratio:.2f} times the median of {', '.join(rows)}."
    return dg.AssetCheckResult(
        check_name="usual_volume", passed=passed, severity=dg.AssetCheckSeverity.WARN, description=said,
        metadata={"rows": clean.rows, "rows_around": rows},
    )  # fmt: skip


def _every_day_present(month: Month, clean: ParquetMonth) -> dg.AssetCheckResult:
    missing = [f"{month}-{day:02d}" for day, rows in enumerate(clean.report.rows_by_day, start=1) if rows == 0]
    return dg.AssetCheckResult(
        check_name="every_day_present",
        passed=not missing,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"No trips on {', '.join(missing)}." if missing else f"All {month.days} days have trips.",
        metadata={"days_missing": missing},
    )


def _columns_known(service: Service, clean: ParquetMonth) -> dg.AssetCheckResult:
    unknown = clean.report.unknown_columns
    names = ", ".join(column.name for column in unknown)
    return dg.AssetCheckResult(
        check_name="columns_known",
        passed=not unknown,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Kept out, because the schema of {service.name} (tlc/schemas/) does not know them: {names}."
        if unknown
        else "Every column of the file is known.",
        metadata={
            "unknown_columns": [column.model_dump() for column in unknown],
            "absent_columns": list(clean.report.absent_columns),
        },
    )

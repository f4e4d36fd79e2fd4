"""The assets revisions/…_trips: the trips that differ between the two newest revisions of a month."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa

from taxi_assets import metadata
from taxi_assets.assets.code_versions import columns_version
from taxi_assets.automation.conditions import on_revision
from taxi_assets.automation.sensors.revision_notifications import NEWER, NOTHING_TO_COMPARE, OLDER, REVISION
from taxi_assets.automation.step_failures import as_failures
from taxi_assets.errors import LakeObjectDamagedError, PermanentError
from taxi_assets.partitions import monthly_partitions
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake.objects import ParquetPartition, RawFile, object_prefix
from taxi_assets.storage.lake.revisions import Revisions
from taxi_assets.storage.parquet_rows import ASSET
from taxi_assets.tlc.cleaning.clean_month import clean_month, data_version
from taxi_assets.tlc.cleaning.file_checks import FileChecks
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.parquet_io import is_readable
from taxi_assets.tlc.revision_report import VERSION, RevisionReport, dollars_text, revision_columns
from taxi_assets.tlc.schema import Service

if TYPE_CHECKING:
    from taxi_assets.storage.revision_comparison.difference_rows import LargestDifference
    from taxi_assets.storage.revision_comparison.month_parts import CleanRevision

_DESCRIPTION = """The trips that differ between the two newest revisions of a month: {title}.

A run cleans both files by the present rules, and compares the clean trips on all published columns that both files
have. A trip with the same times, zones, and vendor or base in both files is *changed*, with one row for each changed
column. Other trips are *added* or *removed*.

Automation requests a month when its raw file has been replaced by other bytes. If the lake has only one revision of the
month, a run compares nothing: its metadata is `nothing_to_compare`."""

# A file that was accepted once is compared, even if a run relaxed these checks to accept it.
_CHECKS = FileChecks(allow_other_months=True, maximum_share_unreadable=1.0)


def revisions_asset(
    service: Service, retry: dg.RetryPolicy | None = None, *, automated: bool = True
) -> dg.AssetsDefinition:
    """Return the asset with the differences between the two newest revisions of each month of a service.

    Args:
        service: The service.
        retry: The retry policy of the step.
        automated: Whether automation requests revised months. Without kept revisions, there is nothing to compare.
    """
    columns = revision_columns(service)

    @dg.asset(
        key=["revisions", service.table],
        deps=[["raw", service.table], ["clean", service.table]],
        description=_DESCRIPTION.format(title=service.title),
        partitions_def=monthly_partitions(service),
        group_name=service.name,
        io_manager_key="lake_parquet",
        kinds={"parquet"},
        metadata={"dagster/column_schema": metadata.column_schema(columns)},
        tags=metadata.asset_tags("revisions", service),
        code_version=columns_version(columns, VERSION),
        automation_condition=on_revision(service) if automated else None,
        retry_policy=retry,
    )
    def revision_differences(context: dg.AssetExecutionContext, lake: Lake) -> Iterator[dg.MaterializeResult[None]]:
        from taxi_assets.storage.revision_comparison.compare_revisions import compare_revisions  # noqa: PLC0415  (imports DuckDB)

        started = time.monotonic()
        month = Month.parse(context.partition_key)
        key = f"{object_prefix('revisions', service, month)}.parquet"
        with as_failures(retry_number=context.retry_number), ExitStack() as stack:
            replaces = lake.version(key)
            revisions = Revisions.of(lake, service, month).list_all()[:2]
            if len(revisions) < 2:
                found = "one revision" if revisions else "no revision"
                message = f"{service.name} {month}: the lake has {found}, so there is nothing to compare."
                context.log.info(message)
                # Without a materialization, Dagster would skip the report in the same run.
                yield dg.MaterializeResult(
                    data_version=dg.DataVersion("nothing to compare"), metadata={NOTHING_TO_COMPARE: message}
                )
                return
            folder = stack.enter_context(lake.staging())
            new, old = (
                stack.enter_context(_cleaned(raw, service, month, lake, folder / name))
                for raw, name in zip(revisions, ("new", "old"), strict=True)
            )
            result = folder / "result"
            result.mkdir()
            compared = compare_revisions(service, month, old, new, result, {ASSET: context.asset_key.to_user_string()})
            file_bytes = compared.path.stat().st_size
            lake.publish(compared.path, key, replaces=replaces, run_id=context.run.run_id)
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(compared.report.data_version),
            metadata={
                **_metadata(compared.report, revisions),
                "largest_differences": dg.MetadataValue.md(_largest_table(compared.largest)),
                **metadata.size_metadata(rows=compared.rows, file_bytes=file_bytes, seconds=time.monotonic() - started),
                **metadata.lake_uri(lake.uri(key)),
                **metadata.generated_note(revisions[0].record.generated),
            },
        )

    return revision_differences


@contextmanager
def _cleaned(raw: RawFile, service: Service, month: Month, lake: Lake, folder: Path) -> Iterator["CleanRevision"]:
    """Yield the clean trips of a revision, by the present rules: those in the lake, if they are of this revision.

    Args:
        raw: The revision.
        service: The service.
        month: The month.
        lake: The lake. Nothing is written to it.
        folder: A new folder for the clean trips, if they are not in the lake.

    Raises:
        PermanentError: The revision cannot be read, or cannot be cleaned.
    """
    from taxi_assets.storage.revision_comparison.month_parts import CleanRevision  # noqa: PLC0415  (imports numpy)

    clean = ParquetPartition.find(lake, object_prefix("clean", service, month))
    if clean is not None and clean.report.data_version == data_version(raw.record, service, service.rules):
        with clean.as_local_file() as path, _damaged_file_as_error(path, clean.uri):
            yield CleanRevision(path, clean.report)
        return
    folder.mkdir()
    try:
        with raw.as_local_file() as path:
            cleaned = clean_month(path, raw.record, service, month, service.rules, folder, _CHECKS)
    except PermanentError as error:
        raise type(error)(
            f"The revisions of {service.name} {month} cannot be compared, because the one with sha256 "
            f"{raw.record.sha256[:12]}… cannot be cleaned by the present rules. {error.problem}",
            remedy=error.remedy,
        ) from error
    cleaned.quarantine.unlink()
    yield CleanRevision(cleaned.clean, cleaned.report)


@contextmanager
def _damaged_file_as_error(path: Path, uri: str) -> Iterator[None]:
    """Name a clean file that cannot be read, if an error is raised while it is compared.

    Raises:
        LakeObjectDamagedError: The file is damaged.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if not is_readable(path):
            raise LakeObjectDamagedError(
                f"{uri} is damaged: its rows cannot be read ({str(error).partition('.')[0]}).",
                remedy="Delete this file, and materialize the clean asset of this month again. Then compare again.",
            ) from error
        raise


def _metadata(report: RevisionReport, revisions: Sequence[RawFile]) -> dict[str, Any]:
    new, old = (revision.record for revision in revisions)
    cents = {} if report.cents is None else {"cents": report.cents}
    by_column = [
        (name, f"{report.changed_by_column.get(name, 0):,}", _dollars_or_empty(report.cents_by_column.get(name)))
        for name in {**report.changed_by_column, **report.cents_by_column}
    ]
    return {
        REVISION: report.sentence(),
        "rows_changed": report.rows_changed,
        "rows_added": report.rows_added,
        "rows_removed": report.rows_removed,
        **cents,
        "differences_by_column": dg.MetadataValue.md(
            metadata.markdown_table(
                ["column", "trips changed", "sum of all trips, newer minus older (US dollars)"], by_column
            )
        ),
        "rows_newer": report.rows_new,
        "rows_older": report.rows_old,
        "quarantined_newer": report.quarantined_new,
        "quarantined_older": report.quarantined_old,
        "columns_only_newer": ", ".join(report.columns_only_new) or "none",
        "columns_only_older": ", ".join(report.columns_only_old) or "none",
        NEWER: f"sha256 {new.sha256}, downloaded {new.fetched_at:%Y-%m-%d %H:%M} UTC from {new.url}",
        OLDER: f"sha256 {old.sha256}, downloaded {old.fetched_at:%Y-%m-%d %H:%M} UTC from {old.url}",
    }


def _largest_table(largest: Sequence["LargestDifference"]) -> str:
    if not largest:
        return "No clean row differs."
    headers = ["change", "rows", *largest[0].key, "older total", "newer total", "difference"]
    return metadata.markdown_table(
        headers,
        [
            [
                each.change,
                f"{each.row_count:,}",
                *each.key.values(),
                _dollars_or_empty(each.old_cents, sign=False),
                _dollars_or_empty(each.new_cents, sign=False),
                ""
                if each.old_cents is each.new_cents is None
                else dollars_text(((each.new_cents or 0) - (each.old_cents or 0)) * each.row_count),
            ]
            for each in largest
        ],
    )


def _dollars_or_empty(cents: int | None, *, sign: bool = True) -> str:
    return "" if cents is None else dollars_text(cents) if sign else dollars_text(cents).removeprefix("+")

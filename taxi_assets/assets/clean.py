"""The assets clean/…_trips and quarantine/…_trips: a month's valid trips, and the rows that were rejected."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from taxi_assets import metadata
from taxi_assets.assets.run_config import cleaning_config
from taxi_assets.automation.conditions import on_raw_change
from taxi_assets.automation.publication.run_tags import PINNED_TAG
from taxi_assets.automation.step_failures import as_failures
from taxi_assets.errors import WrongMonthError
from taxi_assets.partitions import monthly_partitions
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake.objects import ParquetPartition, RawFile, StagedParquet, object_prefix
from taxi_assets.storage.lake.revisions import PRESENT, Revisions
from taxi_assets.storage.lake.same_file import months_with_same_file
from taxi_assets.tlc.cleaning.clean_month import clean_month, data_version
from taxi_assets.tlc.cleaning.file_checks import FileChecks
from taxi_assets.tlc.cleaning.quarantine import QUARANTINE_COLUMNS
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.rules import READING_REASONS
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.sources.source_record import SourceRecord

_LAYERS = ("quarantine", "clean")
"""In the order in which they are written to the lake."""

_CLEAN = """The valid trips of a month, with the same columns for all years: {title} ({description}).

Every column has one name, type and unit in all months. Money and miles are exact decimals. Times are New York
wall-clock times. Rows that cannot be read, or that violate a rule, are in quarantine/{table} instead. Together, the two
assets contain every row of the published file.

`source_row` is the number of the row in the published file. `data_month` is the month of that file. The pickup can be
in a neighboring month."""

_QUARANTINE = """The rejected rows of a month's file, each with all its reasons and its original text.

{reasons}

Run config can select the rules for a run. Reading errors always apply."""


def clean_asset(service: Service, retry: dg.RetryPolicy | None = None) -> dg.AssetsDefinition:
    """Return the clean and quarantine assets of a service, which are written by one step."""
    reasons = {rule.name: rule.description for rule in service.rules} | READING_REASONS
    raw_key = dg.AssetKey(["raw", service.table])
    columns = {"quarantine": QUARANTINE_COLUMNS, "clean": service.columns}
    config_class: Any = cleaning_config(service)
    shared: dict[str, Any] = {
        "group_name": service.name,
        "io_manager_key": "lake_parquet",
        "kinds": {"parquet"},
        # The rules that a run selects in its config are not code.
        "code_version": service.code_version,
        "automation_condition": on_raw_change(),
    }

    @dg.multi_asset(
        name=f"clean_{service.name}",
        partitions_def=monthly_partitions(service),
        ins={"raw": dg.AssetIn(raw_key)},
        # Quarantine first: when a reader sees the new clean rows, the rejected ones are already there.
        outs={
            "quarantine": dg.AssetOut(
                key=["quarantine", service.table],
                tags=metadata.asset_tags("quarantine", service),
                description=_QUARANTINE.format(reasons="\n".join(f"- `{n}`: {d}" for n, d in reasons.items())),
                metadata={"dagster/column_schema": metadata.column_schema(columns["quarantine"])},
                **shared,
            ),
            "clean": dg.AssetOut(
                key=["clean", service.table],
                tags=metadata.asset_tags("clean", service),
                description=_CLEAN.format(title=service.title, description=service.description, table=service.table),
                metadata={"dagster/column_schema": metadata.column_schema(columns["clean"])},
                **shared,
            ),
        },
        retry_policy=retry,
    )
    def clean_trips(
        context: dg.AssetExecutionContext,
        config: config_class,
        raw: RawFile,
        lake: Lake,
    ) -> Iterator[dg.Output[Any]]:
        started = time.monotonic()
        month = Month.parse(context.partition_key)
        with as_failures(retry_number=context.retry_number), lake.staging() as folder:
            rules = service.select_rules(config.rules)
            replaces = {layer: lake.version(f"{object_prefix(layer, service, month)}.parquet") for layer in _LAYERS}
            stored = {layer: ParquetPartition.find(lake, object_prefix(layer, service, month)) for layer in _LAYERS}
            file = _file_to_clean(raw, config.revision, stored)
            pinned = file is not None
            raw = file or raw
            version = data_version(raw.record, service, rules, pinned=pinned)
            if pinned:
                context.instance.add_run_tags(context.run.run_id, {PINNED_TAG: raw.record.sha256[:12]})
            partitions: Mapping[str, ParquetPartition | StagedParquet] = _unchanged_partitions(stored, version)
            outcome = "unchanged"
            if not partitions:
                outcome = "rebuilt"
                if not config.allow_same_file:
                    _require_own_file(raw, lake, service, month)
                checks = FileChecks(config.allow_other_months, config.maximum_share_unreadable)
                with raw.as_local_file() as path:
                    cleaned = clean_month(path, raw.record, service, month, rules, folder, checks, pinned=pinned)
                partitions = {
                    "quarantine": StagedParquet(cleaned.quarantine, cleaned.report, replaces["quarantine"]),
                    "clean": StagedParquet(cleaned.clean, cleaned.report, replaces["clean"]),
                }
            for layer in _LAYERS:
                seconds = time.monotonic() - started
                yield dg.Output(
                    partitions[layer],
                    output_name=layer,
                    data_version=dg.DataVersion(version),
                    metadata={
                        "cleaning_outcome": outcome,
                        **metadata.lake_uri(lake.uri(f"{object_prefix(layer, service, month)}.parquet")),
                        **_metadata(partitions[layer], raw.record, seconds=seconds),
                        **metadata.rules_metadata(service, rules),
                        **metadata.published_lineage(raw_key, columns[layer], partitions[layer].report),
                    },
                )

    return clean_trips


def _require_own_file(raw: RawFile, lake: Lake, service: Service, month: Month) -> None:
    if others := months_with_same_file(raw, lake, service, month):
        raise WrongMonthError(
            f"{service.name} {month}: the file from {raw.record.url} has the same bytes as the file of "
            f"{', '.join(others)}. Nothing was written.",
            remedy="Check which month it belongs to, and that the publisher has the right file under this name. If it "
            f"is right for both, set ops/clean_{service.name}/config/allow_same_file: true in the run config.",
        )


def _metadata(partition: ParquetPartition | StagedParquet, record: SourceRecord, *, seconds: float) -> dict[str, Any]:
    return {
        **metadata.size_metadata(rows=partition.rows, file_bytes=partition.bytes, seconds=seconds),
        **metadata.source_metadata(record),
        **metadata.report_metadata(partition.report),
        "preview": metadata.preview(partition.to_pandas(metadata.PREVIEW_ROWS)),
    }


def _file_to_clean(raw: RawFile, wanted: str, stored: Mapping[str, ParquetPartition | None]) -> RawFile | None:
    """Return the file that the month is or will be pinned to; None to clean the present file.

    Args:
        raw: The present file.
        wanted: The run config `revision`. If it is empty, a pinned month stays pinned.
        stored: The stored partitions by layer. The report in their footers says whether the month is pinned.
    """
    if wanted == PRESENT:
        return None
    revisions = Revisions(raw.lake, raw.prefix)
    if wanted:
        return revisions.find(wanted)
    written = stored["clean"] or stored["quarantine"]
    return revisions.file_of(written.report) if written is not None and written.report.pinned else None


def _unchanged_partitions(stored: Mapping[str, ParquetPartition | None], version: str) -> dict[str, ParquetPartition]:
    """Return both partitions by layer if they have this data version and all their rows; otherwise an empty dict."""
    clean, quarantine = stored["clean"], stored["quarantine"]
    if clean is None or quarantine is None or {clean.report.data_version, quarantine.report.data_version} != {version}:
        return {}
    is_complete = clean.rows == clean.report.clean.rows and quarantine.rows == clean.report.rows_quarantined
    return {"quarantine": quarantine, "clean": clean} if is_complete else {}

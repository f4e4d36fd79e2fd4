"""clean/…_trips and quarantine/…_trips: the two halves of a month's file."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from taxi_assets import metadata
from taxi_assets.automation.conditions import on_upstream_change
from taxi_assets.automation.step_failures import as_failures
from taxi_assets.partitions import monthly_partitions
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake.objects import ParquetPartition, RawFile, StagedParquet, object_prefix
from taxi_assets.tlc.cleaning.clean_month import clean_month, data_version
from taxi_assets.tlc.cleaning.split_batch import QUARANTINE_COLUMNS
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.rules import READING_REASONS
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.sources.source_record import SourceRecord

_CLEAN = """The trips of a month, in one schema for all years: {title} ({description}).

Every column has one name, type and unit from the first file to the newest; money and miles are exact decimals, times
are New York wall-clock times. Rows that cannot be read, or break a rule, are not here but in quarantine/{table};
together they are all rows of the published file. `source_row` says where in that file a row stands, `data_month` which
month's file it is (the pickup may be of a neighbouring month)."""

_QUARANTINE = """The rows of a month's file that are not among the clean trips: with all reasons, and the original text.

{reasons}

The rules (not the reading errors) can be chosen for a run by run config."""


def clean_asset(service: Service, retry: dg.RetryPolicy | None = None) -> dg.AssetsDefinition:
    """The clean shelf of a service, and its quarantine: made together, in one step."""
    reasons = {rule.name: rule.description for rule in service.rules} | READING_REASONS
    shared: dict[str, Any] = {
        "group_name": service.name,
        "io_manager_key": "lake_parquet",
        "owners": metadata.OWNERS,
        "tags": metadata.asset_tags(service),
        "automation_condition": on_upstream_change(),
    }

    @dg.multi_asset(
        name=f"clean_{service.name}",
        partitions_def=monthly_partitions(service),
        ins={"raw": dg.AssetIn(["raw", service.table])},
        # Quarantine first: when the clean rows appear, those left out are already there to be looked at.
        outs={
            "quarantine": dg.AssetOut(
                key=["quarantine", service.table],
                kinds={"quarantine", "parquet"},
                description=_QUARANTINE.format(reasons="\n".join(f"- `{n}`: {d}" for n, d in reasons.items())),
                metadata={"dagster/column_schema": metadata.column_schema(QUARANTINE_COLUMNS)},
                **shared,
            ),
            "clean": dg.AssetOut(
                key=["clean", service.table],
                kinds={"clean", "parquet"},
                description=_CLEAN.format(title=service.title, description=service.description, table=service.table),
                metadata={"dagster/column_schema": metadata.column_schema(service.columns)},
                **shared,
            ),
        },
        config_schema={"rules": _rules_field(service)},
        retry_policy=retry,
    )
    def clean_trips(context: dg.AssetExecutionContext, raw: RawFile, lake: Lake) -> Iterator[dg.Output[Any]]:
        started = time.monotonic()
        month = Month.parse(context.partition_key)
        with as_failures(retry_number=context.retry_number), lake.staging() as folder:
            rules = service.select_rules(context.op_execution_context.op_config["rules"])
            version = data_version(raw.record, service, rules)
            replaces = {
                name: lake.version(f"{object_prefix(name, service, month)}.parquet") for name in ("quarantine", "clean")
            }
            halves = _existing_partition(lake, service, month, version)
            cleaned = "unchanged"
            staged: Mapping[str, ParquetPartition | StagedParquet] = halves
            if not staged:
                cleaned = "anew"
                with raw.as_local_file() as path:
                    made = clean_month(path, raw.record, service, month, rules, folder)
                staged = {
                    "quarantine": StagedParquet(made.quarantine, made.report, replaces["quarantine"]),
                    "clean": StagedParquet(made.clean, made.report, replaces["clean"]),
                }
            for name in ("quarantine", "clean"):
                half = staged[name]
                yield dg.Output(
                    half,
                    output_name=name,
                    data_version=dg.DataVersion(version),
                    metadata={"cleaned": cleaned, **_metadata(half, raw.record, seconds=time.monotonic() - started)},
                )

    return clean_trips


def _metadata(half: ParquetPartition | StagedParquet, record: SourceRecord, *, seconds: float) -> dict[str, Any]:
    return {
        **metadata.size_metadata(rows=half.rows, bytes_=half.bytes, seconds=seconds),
        **metadata.source_metadata(record),
        **metadata.report_metadata(half.report),
        "preview": metadata.preview(half.to_pandas(metadata.PREVIEW_ROWS)),
    }


def _rules_field(service: Service) -> dg.Field:
    """Run config: which rules to apply, with what each of them means, as the launchpad shows it."""
    # The type's name is what Dagster's error for an unknown rule says, so it lists those that exist.
    names = dg.Enum(
        f"{service.name}_rule (one of: {', '.join(rule.name for rule in service.rules)})",
        [dg.EnumValue(rule.name, description=rule.description) for rule in service.rules],
    )
    return dg.Field(
        dg.Array(names),
        default_value=[rule.name for rule in service.rules],
        description="The rules to apply. With none, every row that can be read is kept: plain extract and load.",
    )


def _existing_partition(lake: Lake, service: Service, month: Month, version: str) -> dict[str, ParquetPartition]:
    """Both halves, where the lake holds just what this run would make; otherwise nothing."""
    halves = {}
    for name in ("quarantine", "clean"):
        half = ParquetPartition.find(lake, object_prefix(name, service, month))
        if half is None or half.report.data_version != version:
            return {}
        halves[name] = half
    report = halves["clean"].report
    whole = halves["clean"].rows == report.clean.rows and halves["quarantine"].rows == report.rows_quarantined
    return halves if whole else {}

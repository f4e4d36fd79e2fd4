"""raw/…_trips: the file of a month as its publisher sent it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import dagster as dg

from taxi_assets import metadata
from taxi_assets.automation.publication.materializations import warehouse_digests
from taxi_assets.automation.step_failures import as_failures
from taxi_assets.partitions import monthly_partitions
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake.objects import ParquetPartition, RawFile, StagedRawFile, object_prefix
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.sources.download import DownloadedFile
from taxi_assets.tlc.sources.source_record import SourceRecord, SourceUrl

_DESCRIPTION = """The file of a month, byte for byte as it was published: {title} ({description}).

It is downloaded once. After that the publisher is only asked whether it has changed; when it has not, nothing is
written. What arrives is checked before it is stored: an error page, or a file that was cut off in the middle, never
takes the place of a good one. URL, ETag, digest and time are kept beside the file."""

_CONFIG = {
    "force": dg.Field(
        bool,
        default_value=False,
        description="Download the file even if its publisher says that it has not changed. "
        "If the bytes are the same, the data downstream stay as they are.",
    ),
    "skip_downstream_if_unchanged": dg.Field(
        bool,
        default_value=False,
        description="End the run here if all that is made of it already comes from the same bytes, as after a new "
        "ETag for an old file. Otherwise everything downstream is looked at, and made anew where it has to be.",
    ),
}


def raw_asset(service: Service, retry: dg.RetryPolicy | None = None) -> dg.AssetsDefinition:
    """The raw shelf of a service."""

    @dg.asset(
        key=["raw", service.table],
        deps=[["published", service.table]],
        description=_DESCRIPTION.format(title=service.title, description=service.description),
        partitions_def=monthly_partitions(service),
        group_name=service.name,
        io_manager_key="raw_files",
        owners=metadata.OWNERS,
        kinds={"raw", "file"},
        tags=metadata.asset_tags(service),
        config_schema=_CONFIG,
        output_required=False,
        retry_policy=retry,
    )
    def raw_trips(
        context: dg.AssetExecutionContext, lake: Lake, publisher: PublisherResource
    ) -> Iterator[dg.Output[Any]]:
        month = Month.parse(context.partition_key)
        candidates = publisher.publisher.source_urls(service, month)
        config = context.op_execution_context.op_config
        prefix = object_prefix("raw", service, month)
        with current_file(
            f"{service.name} {month}", candidates, prefix, lake, publisher, force=config["force"]
        ) as file:
            with file.open() as bytes_:
                preview = metadata.file_preview(bytes_, file.record.format)
            message = {**file.metadata, "preview": preview}
            digest = file.record.sha256
            if config["skip_downstream_if_unchanged"] and _is_loaded_downstream(
                digest, context.instance, lake, service, month
            ):
                if isinstance(file.output, StagedRawFile):
                    with as_failures(retry_number=context.retry_number):
                        RawFile.publish(lake, prefix, file.output, run_id=context.run.run_id)
                context.log_event(_materialization(context, digest, message))
                return  # without an output nothing downstream runs
            yield dg.Output(file.output, data_version=dg.DataVersion(digest), metadata=message)

    return raw_trips


def _is_loaded_downstream(
    digest: str, instance: dg.DagsterInstance, lake: Lake, service: Service, month: Month
) -> bool:
    """Whether the warehouse and the shelves before it hold what was made of these bytes.

    The shelves may hold another version: that of a run which then failed to load it.
    """
    if warehouse_digests(instance, service, [month]).get(month) != digest:
        return False
    with as_failures():
        halves = [
            ParquetPartition.find(lake, object_prefix(layer, service, month)) for layer in ("clean", "quarantine")
        ]
    return all(half is not None and half.report.raw_sha256 == digest for half in halves)


def _materialization(
    context: dg.AssetExecutionContext, data_version: str, metadata: Mapping[str, Any]
) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        context.asset_key,
        partition=context.partition_key,
        metadata=metadata,
        tags={"dagster/data_version": data_version},
    )


@dataclass(frozen=True)
class CurrentFile:
    """A published file as it is today: new (`output` is what was fetched) or the one on the shelf, still current."""

    output: StagedRawFile | RawFile
    record: SourceRecord
    metadata: Mapping[str, Any]

    def open(self) -> BinaryIO:
        """Its bytes."""
        return self.output.downloaded.path.open("rb") if isinstance(self.output, StagedRawFile) else self.output.open()


@contextmanager
def current_file(
    label: str,
    sources: Sequence[SourceUrl],
    prefix: str,
    lake: Lake,
    publisher: PublisherResource,
    *,
    force: bool = False,
) -> Iterator[CurrentFile]:
    """Ask the publisher for a file, and fetch it unless the lake holds it already; with `force`, even then."""
    started = time.monotonic()
    with as_failures(), lake.staging() as folder:
        replaces = RawFile.current_versions(lake, prefix)
        held = RawFile.find(lake, prefix)
        if held is not None and not held.is_intact():
            held = None
        outcome = publisher.download(
            label, sources, known=held.record if held and not force else None, output_dir=folder
        )
        if isinstance(outcome, DownloadedFile):
            same = held is not None and held.record.sha256 == outcome.record.sha256
            output: StagedRawFile | RawFile = StagedRawFile(outcome, replaces)
            fetched = "again, the same bytes" if same else "new bytes"
        else:
            assert held is not None  # noqa: S101  (only what is held can be unchanged)
            output, fetched = held, "unchanged"
        record = outcome.record
        figures = {
            **metadata.size_metadata(rows=record.rows, bytes_=record.bytes, seconds=time.monotonic() - started),
            "fetched": fetched,
            **metadata.source_metadata(record, digest="sha256"),
        }
        yield CurrentFile(output, record, figures)

"""The assets raw/…_trips: the file of a month, byte for byte as published."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import dagster as dg

from taxi_assets import metadata
from taxi_assets.assets.code_versions import AS_PUBLISHED
from taxi_assets.assets.run_config import RawConfig
from taxi_assets.automation.publication.materializations import warehouse_digests
from taxi_assets.automation.publication.run_tags import UNCOMPARED_TAG
from taxi_assets.automation.step_failures import as_failures
from taxi_assets.partitions import monthly_partitions
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake.objects import ParquetPartition, RawFile, StagedRawFile, object_prefix
from taxi_assets.storage.lake.revisions import Revisions
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.sources.download import DownloadedFile
from taxi_assets.tlc.sources.source_record import SourceRecord, SourceUrl

_DESCRIPTION = """The file of a month, byte for byte as published: {title} ({description}).

The first run of a month downloads the file. Later runs ask the publisher whether the file has changed, and download it
again only if it has. A download is validated before it is stored: an error page or a truncated file never replaces a
valid file. The lake stores a source record next to the file: URL, ETag, SHA-256 and download time."""


def raw_asset(service: Service, retry: dg.RetryPolicy | None = None) -> dg.AssetsDefinition:
    """Return the asset with the published files of a service, one per month."""

    @dg.asset(
        key=["raw", service.table],
        deps=[["published", service.table]],
        description=_DESCRIPTION.format(title=service.title, description=service.description),
        partitions_def=monthly_partitions(service),
        group_name=service.name,
        io_manager_key="raw_files",
        kinds={"csv", "parquet"},
        tags=metadata.asset_tags("raw", service),
        code_version=AS_PUBLISHED,
        output_required=False,
        retry_policy=retry,
    )
    def raw_trips(
        context: dg.AssetExecutionContext, config: RawConfig, lake: Lake, publisher: PublisherResource
    ) -> Iterator[dg.Output[Any]]:
        month = Month.parse(context.partition_key)
        urls = publisher.publisher_of(service).source_urls(service, month)
        prefix = object_prefix("raw", service, month)
        with current_file(f"{service.name} {month}", urls, prefix, lake, publisher, force=config.force) as file:
            with file.open() as stream:
                contents = metadata.file_contents(stream, file.record.format, service.dialect)
            output_metadata = {
                **file.metadata,
                **metadata.lake_uri(lake.uri(f"{prefix}.{file.record.format}")),
                **contents,
            }
            digest, steps = file.record.sha256, cast("Mapping[str, Any]", context.run.run_config.get("ops", {}))
            # Before the materialization, which automation may detect at once.
            if Revisions(lake, prefix).is_uncompared(digest):
                context.instance.add_run_tags(context.run.run_id, {UNCOMPARED_TAG: digest[:12]})
            if (
                config.skip_downstream_if_unchanged
                and f"clean_{service.name}" not in steps  # the run may ask for other clean trips
                and _is_loaded_downstream(digest, context.instance, lake, service, month)
            ):
                if isinstance(file.output, StagedRawFile):
                    # Without an output no IO manager runs, so the file is stored here. If another run has written a
                    # different file meanwhile, `as_failures` requests a retry of the step, up to three times.
                    with as_failures(retry_number=context.retry_number):
                        revisions = Revisions(lake, prefix)
                        RawFile.publish(lake, prefix, file.output, run_id=context.run.run_id, revisions=revisions)
                context.log_event(_build_materialization(context, digest, output_metadata))
                return  # Dagster skips the downstream steps of a step without output.
            # Dagster calls the IO manager before it resumes this generator, so the download still exists.
            yield dg.Output(file.output, data_version=dg.DataVersion(digest), metadata=output_metadata)

    return raw_trips


def _is_loaded_downstream(
    digest: str, instance: dg.DagsterInstance, lake: Lake, service: Service, month: Month
) -> bool:
    """Return whether the clean, quarantine and warehouse layers were all built from the raw file with this digest.

    The warehouse alone is not sufficient evidence: a run may have cleaned a newer file and then failed to load it.
    """
    if warehouse_digests(instance, service, [month]).get(month) != digest:
        return False
    with as_failures():
        partitions = [
            ParquetPartition.find(lake, object_prefix(layer, service, month)) for layer in ("clean", "quarantine")
        ]
    return all(partition is not None and partition.report.raw_sha256 == digest for partition in partitions)


def _build_materialization(
    context: dg.AssetExecutionContext, data_version: str, output_metadata: Mapping[str, Any]
) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        context.asset_key,
        partition=context.partition_key,
        metadata=output_metadata,
        tags={"dagster/data_version": data_version},
    )


@dataclass(frozen=True)
class CurrentFile:
    """The current version of a published file."""

    output: StagedRawFile | RawFile
    """The downloaded file, not yet written to the lake; or the file in the lake, if it is current."""
    record: SourceRecord
    metadata: Mapping[str, Any]
    """Metadata of the materialization: size, source, and whether the file was downloaded."""

    def open(self) -> BinaryIO:
        """Open the file to read its bytes."""
        return self.output.downloaded.path.open("rb") if isinstance(self.output, StagedRawFile) else self.output.open()


@contextmanager
def current_file(
    label: str,
    urls: Sequence[SourceUrl],
    prefix: str,
    lake: Lake,
    publisher: PublisherResource,
    *,
    force: bool = False,
) -> Iterator[CurrentFile]:
    """Yield the current version of a published file.

    The file is downloaded unless the lake has an intact copy that the publisher reports as current. A downloaded file
    is deleted when the context ends, so write it to the lake inside the context.

    Args:
        label: Names the file in errors, such as "green 2020-10".
        urls: The URLs at which the file may be published, in order of preference.
        prefix: The prefix of the file's objects in the lake.
        lake: The lake that may contain the file.
        publisher: The publisher to ask.
        force: Download the file even if the lake has its current version.

    Raises:
        dagster.Failure: The lake or the publisher reported an error, or the downloaded file is invalid. Errors of this
            package that are raised inside the context are converted, too.
    """
    started = time.monotonic()
    with as_failures(), lake.staging() as folder:
        # Read before the download, so that `RawFile.publish` can detect that another run has written a file meanwhile.
        replaces = RawFile.current_versions(lake, prefix)
        stored = RawFile.find(lake, prefix)
        if stored is not None and not stored.is_intact():
            stored = None
        outcome = publisher.download(
            label, urls, known=stored.record if stored and not force else None, output_dir=folder
        )
        if isinstance(outcome, DownloadedFile):
            is_same = stored is not None and stored.record.sha256 == outcome.record.sha256
            output: StagedRawFile | RawFile = StagedRawFile(outcome, replaces)
            fetched = "same bytes again" if is_same else "new bytes"
        else:
            assert stored is not None  # noqa: S101  (only a stored file can be reported as unchanged)
            output, fetched = stored, "unchanged"
        record = outcome.record
        file_metadata = {
            **metadata.size_metadata(rows=record.rows, file_bytes=record.bytes, seconds=time.monotonic() - started),
            "fetched": fetched,
            **metadata.source_metadata(record, digest_key="sha256"),
        }
        yield CurrentFile(output, record, file_metadata)

"""PyIceberg and Polars read the tables in a bucket, with their own clients of Cloud Storage.

They are in a separate process: while pyarrow's client waits for an answer, it does not let other Python code of its
process run, such as the double's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from taxi_assets.tlc.month import Month
from taxi_assets_tests.contract.stores import child_process
from taxi_assets_tests.iceberg_tables import (
    Content,
    independent_table,
    lake_content,
    open_catalog,
    polars_content,
    publish_and_commit,
    pyiceberg_content,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection
    from pathlib import Path

    from taxi_assets_tests.contract.stores import LakeBackend
    from taxi_assets_tests.google.cloud_storage import CloudStorage

MONTHS = [Month(2021, 1).shift(number) for number in range(24)]


def read(folder: Path, endpoint: str, snapshot_ids: Sequence[int], pipe: Connection) -> None:
    """Send what each reader finds in each snapshot."""
    login = {"gcs.oauth2.token": "unused", "gcs.oauth2.token-expires-at": "4102444800000"}
    table = independent_table(folder, **{"gcs.service.host": endpoint, **login})
    no_login = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    key = json.dumps({"gcs_base_url": endpoint, **no_login})
    options = {"reader_override": "native", "storage_options": {"google_service_account_key": key}}
    for snapshot_id in snapshot_ids:
        pipe.send(pyiceberg_content(table, snapshot_id))
        pipe.send(polars_content(table, snapshot_id, reader_override="pyiceberg"))
        pipe.send(polars_content(table, snapshot_id, **options))


def test_readers_find_24_months_to_the_cent_and_travel_to_the_snapshot_before_a_revision(
    gcs_lake: LakeBackend, cloud_storage: CloudStorage, tmp_path: Path
) -> None:
    catalog = open_catalog(gcs_lake.open(), tmp_path)
    expected: list[Content] = []
    snapshot_ids = []
    for months, seed in ((MONTHS, 0), (MONTHS[:1], 1)):
        for month in months:
            committed = publish_and_commit(catalog, month, 20 + month.start.month, seed=seed)
        snapshot_ids.append(committed.snapshot_id)
        expected.append(lake_content(catalog.lake, *MONTHS))
    assert expected[0] != expected[1]
    with child_process(read, tmp_path, cloud_storage.endpoint, snapshot_ids) as child:
        for content in expected:
            assert [child.receive() for _ in range(3)] == [content] * 3
    clients = {request.headers["User-Agent"].partition("/")[0] for request in cloud_storage.requests}
    assert {"gl-cpp", "polars"} < clients

"""Files and folders of parts in a folder of this machine: how they are found, copied and compared."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import zipfile
from typing import TYPE_CHECKING

import pytest

from taxi_assets.errors import (
    InvalidFileError,
    NotPublishedError,
    PublisherRequestError,
    PublisherUnreachableError,
    TaxiAssetsError,
)
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.sources.content_limits import FileLimits
from taxi_assets.tlc.sources.download import UnchangedFile
from taxi_assets.tlc.sources.publishers import resolve_publisher
from taxi_assets.tlc.sources.source_record import FileVersion, SourceRecord, SourceUrl
from taxi_assets.tlc.sources.transports import folder_transport
from taxi_assets.tlc.sources.transports.base_transport import (
    DEFAULT_RETRY,
    DownloadRequest,
    DownloadResult,
    MissingFileError,
    NotModified,
)
from taxi_assets.tlc.sources.transports.folder_parts import archive_parts
from taxi_assets.tlc.sources.transports.folder_transport import FolderTransport
from taxi_assets.tlc.sources.version_check import check_version
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.unit.tlc.sources.downloads import (
    CSV_FILE,
    LOG,
    NAME,
    OTHER_CSV,
    download_csv,
    downloaded_record,
    output_dir,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["output_dir"]

CASE = REPOSITORY / ".." / "shared" / "cases" / "09-spark-directory"
MONTH = Month(2020, 10)
STEM = "green_tripdata_2020-10"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "published"
    folder.mkdir()
    return folder


@pytest.fixture
def parts(folder: Path) -> Path:
    """Return a folder of three CSV parts, as Spark writes it."""
    parts = folder / f"{STEM}.csv"
    parts.mkdir()
    (parts / "part-00001.csv").write_bytes(b"a,b\n3,4\n")
    (parts / "part-00000.csv").write_bytes(b"a,b\n1,2\n")
    (parts / "part-00002.csv").write_bytes(b"")
    for name in ("_SUCCESS", ".part-00000.csv.crc", "_started_1", "._part-00000.csv"):
        (parts / name).write_bytes(b"marker")
    return parts


def sources(folder: Path) -> list[SourceUrl]:
    return resolve_publisher(str(folder)).source_urls(GREEN, MONTH)


def version(folder: Path, known: FileVersion | None = None) -> FileVersion | None:
    return check_version("green 2020-10", sources(folder), known=known)


def existing(found: FileVersion | None) -> FileVersion:
    assert found is not None
    return found


def record_of(request: DownloadRequest, result: DownloadResult) -> SourceRecord:
    return SourceRecord.model_validate({
        "url": request.url, "publisher": "p", "format": request.source.format, "bytes": result.bytes, "rows": 2,
        "sha256": result.sha256, "etag": result.etag, "fetched_at": "2026-01-01T00:00:00Z",
    })  # fmt: skip


def download_request(
    folder: Path, output_dir: Path, known: SourceRecord | None = None, limits: FileLimits | None = None
) -> DownloadRequest:
    """Return the request for the first URL that the folder has."""
    found = existing(version(folder))
    (source,) = [source for source in sources(folder) if source.url == found.url]
    return DownloadRequest(
        label="green 2020-10", source=source, known=known, path=output_dir / f"download.{source.format}",
        limits=limits or FileLimits(), log=LOG, retry=DEFAULT_RETRY,
    )  # fmt: skip


def transfer(request: DownloadRequest) -> DownloadResult:
    """Download without validation, and check the digest and the length of the result."""
    result = FolderTransport().download(request)
    assert isinstance(result, DownloadResult)
    content = request.path.read_bytes()
    assert (result.bytes, result.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    return result


def folder_error(folder: Path, error: type[TaxiAssetsError]) -> str:
    """Return the one-line error of the version check, and check that a download fails in the same way."""
    with pytest.raises(error) as checked:
        version(folder)
    assert "\n" not in str(checked.value)
    return str(checked.value)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", ["csv", "CSV", "Csv"])
def test_an_extension_may_be_in_any_case(folder: Path, output_dir: Path, extension: str) -> None:
    (folder / f"{STEM}.{extension}").write_bytes(CSV_FILE)
    url = (folder / NAME).as_uri()
    assert downloaded_record(download_csv(url, output_dir), CSV_FILE).url == url
    assert existing(version(folder)).url == url


@pytest.mark.parametrize(
    ("name", "file_format"),
    [("CSV.GZ", FileFormat.CSV_GZ), ("Parquet", FileFormat.PARQUET), ("PARQUET", FileFormat.PARQUET), ("ZIP", "zip")],
)
def test_every_format_is_found_in_any_case(folder: Path, output_dir: Path, name: str, file_format: FileFormat) -> None:
    (folder / f"{STEM}.{name}").write_bytes(b"any content")
    request = download_request(folder, output_dir)
    assert request.source.format == file_format
    transfer(request)


def test_a_folder_of_parts_is_found_in_any_case(folder: Path, parts: Path) -> None:
    parts.rename(folder / f"{STEM}.CSV")
    assert existing(version(folder)).url == f"{(folder / STEM).as_uri()}.csv/"


def test_the_exact_name_is_preferred_and_two_others_are_ambiguous(folder: Path) -> None:
    for extension in ("CSV", "Csv"):
        (folder / f"{STEM}.{extension}").write_bytes(CSV_FILE)
    text = folder_error(folder, PublisherRequestError)
    assert f"more than one file could be meant: {STEM}.CSV, {STEM}.Csv" in text
    (folder / NAME).write_bytes(CSV_FILE)
    assert existing(version(folder)).bytes == len(CSV_FILE)


def test_a_name_that_differs_in_more_than_its_extension_is_another_file(folder: Path) -> None:
    (folder / NAME.upper()).write_bytes(CSV_FILE)
    assert version(folder) is None


def test_files_are_preferred_to_folders_of_parts(folder: Path, parts: Path) -> None:
    other = folder / f"{STEM}.parquet"
    shutil.copytree(parts, other)
    assert existing(version(folder)).url == f"{other.as_uri()}/"
    for extension in ("zip", "csv.gz"):
        (folder / f"{STEM}.{extension}").write_bytes(CSV_FILE)
        assert existing(version(folder)).url == (folder / f"{STEM}.{extension}").as_uri()


# --- versions ---------------------------------------------------------------------------------------------------------


def test_a_change_is_found_even_if_size_and_modification_time_stay(folder: Path, output_dir: Path) -> None:
    path = folder / NAME
    path.write_bytes(CSV_FILE)
    status = path.stat()
    known = downloaded_record(download_csv(path.as_uri(), output_dir), CSV_FILE)
    before = existing(version(folder))
    assert isinstance(download_csv(path.as_uri(), output_dir, known=known), UnchangedFile)
    other = CSV_FILE.replace(b"7919", b"9197")
    time.sleep(0.02)  # the clock of a file system advances in steps
    path.write_bytes(other)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert not existing(version(folder, known=before)).is_same_as(before)
    downloaded_record(download_csv(path.as_uri(), output_dir, known=known), other)


def test_a_file_that_replaces_another_is_a_change(folder: Path) -> None:
    (folder / NAME).write_bytes(CSV_FILE)
    before = existing(version(folder))
    shutil.copy2(folder / NAME, folder / "copy")
    (folder / "copy").rename(folder / NAME)
    assert not existing(version(folder)).is_same_as(before)


def test_a_month_that_an_earlier_version_loaded_is_the_same_until_its_size_or_time_changes(
    folder: Path, output_dir: Path
) -> None:
    path = folder / NAME
    path.write_bytes(CSV_FILE)
    status = path.stat()
    etag = f'"{status.st_mtime_ns}-{status.st_size}"'
    before = FileVersion(path.as_uri(), str(folder), etag, None, status.st_size)
    assert version(folder, known=before) == before
    path.write_bytes(OTHER_CSV)
    assert not existing(version(folder, known=before)).is_same_as(before)
    known = downloaded_record(download_csv(path.as_uri(), output_dir), OTHER_CSV)
    old = known.model_copy(update={"etag": f'"{path.stat().st_mtime_ns}-{path.stat().st_size}"'})
    record = downloaded_record(download_csv(path.as_uri(), output_dir, known=old), OTHER_CSV)
    assert record.etag == known.etag, "a run records the version in the new form"


# --- folders of parts -------------------------------------------------------------------------------------------------


def test_a_folder_of_parts_becomes_an_archive_in_the_order_of_names(
    folder: Path, parts: Path, output_dir: Path
) -> None:
    request = download_request(folder, output_dir)
    assert (request.url, request.source.format) == (f"{parts.as_uri()}/", FileFormat.ZIP)
    result = transfer(request)
    with zipfile.ZipFile(request.path) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "part-00000.csv": b"a,b\n1,2\n", "part-00001.csv": b"a,b\n3,4\n", "part-00002.csv": b"",
        }  # fmt: skip
        assert archive.namelist() == sorted(archive.namelist())
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
    assert existing(version(folder)).etag == result.etag


def test_the_same_parts_give_the_same_bytes(folder: Path, parts: Path, output_dir: Path) -> None:
    first = transfer(download_request(folder, output_dir))
    moved = folder.with_name("moved")
    moved.mkdir()
    shutil.copytree(parts, moved / parts.name, copy_function=shutil.copyfile)
    (moved / parts.name / "part-00000.csv").chmod(0o755)
    (moved / parts.name / "_SUCCESS").unlink()
    assert transfer(download_request(moved, output_dir)).sha256 == first.sha256


def test_an_unchanged_folder_is_not_archived_again(folder: Path, parts: Path, output_dir: Path) -> None:
    request = download_request(folder, output_dir)
    known = record_of(request, transfer(request))
    assert FolderTransport().download(download_request(folder, output_dir, known)) == NotModified(known)
    (parts / "_SUCCESS").write_bytes(b"again")
    assert FolderTransport().download(download_request(folder, output_dir, known)) == NotModified(known)


@pytest.mark.parametrize("change", ["added", "removed", "renamed", "rewritten", "replaced"])
def test_every_change_of_a_part_is_another_version(folder: Path, parts: Path, change: str) -> None:
    before, part = existing(version(folder)), parts / "part-00001.csv"
    status = part.stat()
    time.sleep(0.02)  # the clock of a file system advances in steps
    match change:
        case "added":
            (parts / "part-00003.csv").write_bytes(b"a,b\n5,6\n")
        case "removed":
            part.unlink()
        case "renamed":
            part.rename(parts / "part-00009.csv")
        case "rewritten":
            part.write_bytes(b"a,b\n3,5\n")
            os.utime(part, ns=(status.st_atime_ns, status.st_mtime_ns))
        case "replaced":
            shutil.copy2(part, folder / "copy")
            (folder / "copy").rename(part)
    assert not existing(version(folder)).is_same_as(before)


def test_the_case_of_spark_is_archived_without_its_marker(output_dir: Path) -> None:
    (source,) = [
        source
        for source in resolve_publisher(str(CASE)).source_urls(GREEN, Month(2021, 3))
        if source.url.endswith(".parquet/")
    ]
    assert existing(check_version("green 2021-03", [source])).url == source.url
    request = DownloadRequest(
        label="green 2021-03", source=source, known=None, path=output_dir / "download.zip", limits=FileLimits(),
        log=LOG, retry=DEFAULT_RETRY,
    )  # fmt: skip
    transfer(request)
    with zipfile.ZipFile(request.path) as archive:
        assert archive.namelist() == ["part-00000-0000.snappy.parquet", "part-00001-0000.snappy.parquet"]


def test_a_folder_without_parts_is_an_error(folder: Path, parts: Path) -> None:
    for part in parts.glob("part-*"):
        part.unlink()
    text = folder_error(folder, PublisherRequestError)
    assert text.startswith(f"green 2020-10 could not be fetched from {parts.as_uri()}/: the folder has no part files. ")


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("vendor=1", "it contains the folder vendor=1; put all parts directly into it"),
        ("more", "it contains the folder more; put all parts directly into it"),
        ("_delta_log", "it is a Delta Lake table, not a folder of parts"),
        (".hoodie", "it is a Hudi table, not a folder of parts"),
        ("_temporary", "it is not complete, because it contains _temporary"),
    ],
)
def test_a_folder_in_a_folder_of_parts_is_refused(
    folder: Path, parts: Path, output_dir: Path, name: str, cause: str
) -> None:
    request = download_request(folder, output_dir)
    (parts / name).mkdir()
    assert cause in folder_error(folder, PublisherRequestError)
    with pytest.raises(PublisherRequestError, match=cause):
        FolderTransport().download(request)


def test_a_part_that_is_no_file_is_named(folder: Path, parts: Path) -> None:
    os.mkfifo(parts / "pipe")
    assert "its part pipe is not a regular file" in folder_error(folder, PublisherRequestError)
    (parts / "pipe").unlink()
    (parts / "link").symlink_to("nowhere")
    assert "its part link is a link to a file that does not exist" in folder_error(folder, PublisherRequestError)


@pytest.mark.usefixtures("parts")
def test_parts_above_the_size_limit_are_not_archived(folder: Path, output_dir: Path) -> None:
    request = download_request(folder, output_dir, limits=FileLimits(max_bytes=15))
    with pytest.raises(InvalidFileError, match="larger than 15 bytes"):
        FolderTransport().download(request)
    assert not request.path.exists()


@pytest.mark.parametrize("name", ["part-00000.csv", "part-00009.csv"])
def test_a_change_while_the_parts_are_read_is_an_error(
    folder: Path, parts: Path, output_dir: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = download_request(folder, output_dir)

    def change_and_archive(*arguments: object) -> None:
        (parts / name).write_bytes(b"a,b\n1,2\n8,9\n")
        archive_parts(*arguments)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(folder_transport, "archive_parts", change_and_archive)
    with pytest.raises(PublisherUnreachableError, match="changed while it was read"):
        FolderTransport().download(request)


def test_a_folder_in_place_of_a_file_and_a_file_in_place_of_a_folder_are_not_published(
    folder: Path, output_dir: Path
) -> None:
    (folder / f"{STEM}.csv.gz").mkdir()
    with pytest.raises(NotPublishedError, match=r"csv\.gz \(a folder, not a file\)"):
        download_csv((folder / f"{STEM}.csv.gz").as_uri(), output_dir)
    (folder / f"{STEM}.zip").write_bytes(b"")
    url = f"{(folder / STEM).as_uri()}.zip/"
    request = DownloadRequest(
        label="a", source=SourceUrl(url, "p", FileFormat.ZIP), known=None, path=output_dir / "x", limits=FileLimits(),
        log=LOG, retry=DEFAULT_RETRY,
    )  # fmt: skip
    with pytest.raises(MissingFileError, match="a file, not a folder"):
        FolderTransport().download(request)

"""Validation of downloaded files, and their row counts."""

from __future__ import annotations

import gzip
import io
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi_assets.errors import InvalidFileError
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.sources.content_limits import FileLimits
from taxi_assets.tlc.sources.count_csv_rows import MAX_LINE_BYTES
from taxi_assets.tlc.sources.validate_file import validate_file

DATA = Path(__file__).parents[4] / ".." / "shared" / "data"
CSV, CSV_GZ, PARQUET = FileFormat.CSV, FileFormat.CSV_GZ, FileFormat.PARQUET
TABLE = b"a,b,c\n1,2,3\n4,5,6\n7,8,9\n"


def format_of(path: Path) -> FileFormat:
    return next(extension for extension in FileFormat if path.name.endswith(f".{extension}"))


def rows(content: bytes, file_format: FileFormat, folder: Path, limits: FileLimits | None = None) -> int:
    path = folder / f"file.{file_format}"
    path.write_bytes(content)
    return validate_file(path, file_format, label="green 2020-10", url="http://host/x", limits=limits or FileLimits())


def validation_error(content: bytes, file_format: FileFormat, folder: Path, limits: FileLimits | None = None) -> str:
    with pytest.raises(InvalidFileError) as error:
        rows(content, file_format, folder, limits)
    text = str(error.value)
    assert text.startswith("green 2020-10 from http://host/x was rejected: ")
    assert "\n" not in text
    assert error.value.remedy
    return text


def parquet(count: int = 3, **options: int) -> bytes:
    buffer = io.BytesIO()
    table = pa.table({"a": pa.array(range(count), pa.int64()), "b": [f"text {row}" for row in range(count)]})
    pq.write_table(table.cast(pa.schema([("a", pa.int64()), ("b", pa.string())])), buffer, **options)
    return buffer.getvalue()


# --- complete files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("green_tripdata_2013-08.csv", 7_623),
        ("green_tripdata_2020-10.csv.gz", 95_120),
        ("green_tripdata_2023-01.parquet", 68_211),
        ("green_tripdata_2023-02.parquet", 64_809),
        ("green_tripdata_2024-01.parquet", 56_551),
        ("taxi_zone_lookup.csv", 265),
    ],
)
def test_complete_months_have_their_published_number_of_rows(name: str, expected: int) -> None:
    path = DATA / "months" / name
    assert validate_file(path, format_of(path), label=name, url=name) == expected


@pytest.mark.parametrize("path", sorted((DATA / "first100").glob("*.csv")), ids=lambda path: path.stem)
def test_every_era_of_headers_and_line_ends_counts_a_hundred_rows(path: Path) -> None:
    assert validate_file(path, CSV, label=path.name, url=path.name) == 100


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (TABLE, 3),
        (TABLE.replace(b"\n", b"\r\n"), 3),
        (TABLE.replace(b"\n", b"\r"), 3),
        (b"\xef\xbb\xbf" + TABLE, 3),
        (b"\n\r\n" + TABLE.replace(b"\n", b"\r\n\n\r\r\n"), 3),
        (b"a,b,c\n\r\n1,2,3\r\n4,5,6\r\n", 2),
        (b'a,b\n"1","x\n2,"y"\n', 2),
    ],
    ids=["lf", "crlf", "cr", "byte order mark", "blank lines", "mixed", "a stray quote swallows nothing"],
)
def test_each_non_blank_line_is_one_row(content: bytes, expected: int, tmp_path: Path) -> None:
    assert rows(content, CSV, tmp_path) == expected
    assert rows(gzip.compress(content), CSV_GZ, tmp_path) == expected


@given(st.lists(st.sampled_from([b"1,2", b"33,", b",", b"\n", b"\r", b"\r\n"]), max_size=40))
def test_rows_are_counted_by_line_ends(tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]) -> None:
    content = b"a,b\n1,2\n" + b"".join(chunks) + b"\n"
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    expected = len([line for line in lines if line]) - 1
    assert rows(content, CSV, tmp_path_factory.getbasetemp()) == expected


def test_line_ends_split_between_two_chunks_are_counted_once(tmp_path: Path) -> None:
    line = b"1234567,890123\r\n"  # 16 bytes: the chunks end with a line, unless the length of the header shifts them
    for shift in range(18):
        header = b"a," + b"b" * shift + b"\r\n"
        assert rows(header + line * 40_000, CSV, tmp_path) == 40_000


def test_a_byte_order_mark_is_not_a_header(tmp_path: Path) -> None:
    assert rows(b"\xef\xbb\xbf\r\na,b\r\n1,2\r\n", FileFormat.CSV, tmp_path) == 1
    assert rows(b"\xef\xbb\xbfa,b\r\n1,2\r\n", FileFormat.CSV, tmp_path) == 1


def test_several_gzip_members_are_one_file(tmp_path: Path) -> None:
    assert rows(gzip.compress(TABLE) + gzip.compress(b"10,11,12\n"), CSV_GZ, tmp_path) == 4


def test_a_complete_last_line_without_a_line_end_is_accepted(tmp_path: Path) -> None:
    assert rows(TABLE.rstrip(b"\n"), CSV, tmp_path) == 3
    assert rows(b"a,b\n1,2", CSV, tmp_path) == 1
    # 17 names over 19 fields, as in 2016: the data lines say what complete is.
    assert rows(b"a,b\n1,2,,\n3,4,,\n5,6,,", CSV, tmp_path) == 3


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "large.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"a,b,c\n")
        for start in range(0, 600_000, 1000):
            file.write(b"".join(b"%d,2020-10-01 00:00:00,text\n" % row for row in range(start, start + 1000)))
    tracemalloc.start()
    try:
        assert validate_file(path, CSV_GZ, label="x", url="x") == 600_000
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


# --- wrong formats and damaged files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("cut_mid_row.csv", "it is truncated in the middle of its last line (2 of 18 fields and no line end)"),
        (
            "error_page_html.parquet",
            'it is an HTML page ("ERROR: The request could not be satisfied"), not Parquet',
        ),
        ("git_lfs_pointer.csv.gz", "it is a git-LFS pointer, not gzip (csv.gz)"),
        ("no_footer.parquet", "it is a Parquet file without a footer: the file is truncated"),
    ],
)
def test_files_that_real_users_received_instead_are_named(name: str, finding: str, tmp_path: Path) -> None:
    path = DATA / "broken" / name
    assert f"rejected: {finding}." in validation_error(path.read_bytes(), format_of(path), tmp_path)


@pytest.mark.parametrize("file_format", FileFormat)
@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (b"", "it is empty (0 bytes)"),
        (b"<!DOCTYPE html>\n<html><title>Not\n  found &amp; gone</title></html>", 'an HTML page ("Not found & gone")'),
        (b"\n  <HTML><BODY>403</BODY></HTML>", "an HTML page, not"),
        (b'<?xml version="1.0"?>\n<!DOCTYPE html>\n<html/>', "an HTML page"),
        (b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', 'an XML document ("NoSuchKey")'),
        (b'{"message": "Not Found"}', "a JSON document"),
        (b'\xef\xbb\xbf[{"error": 1}]', "a JSON document"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a git-LFS pointer"),
        (b"PK\x03\x04" + bytes(100), "zip archive"),
    ],
    ids=["empty", "html with title", "html", "xhtml", "xml", "json object", "json list", "lfs pointer", "zip"],
)
def test_a_wrong_format_is_detected_by_content_under_any_extension(
    content: bytes, finding: str, file_format: FileFormat, tmp_path: Path
) -> None:
    assert finding in validation_error(content, file_format, tmp_path)


def test_a_wrong_format_inside_gzip_is_detected(tmp_path: Path) -> None:
    assert "its gzip content is an HTML page" in validation_error(gzip.compress(b"<html></html>"), CSV_GZ, tmp_path)
    assert "its gzip content is gzip" in validation_error(gzip.compress(gzip.compress(TABLE)), CSV_GZ, tmp_path)
    assert "its gzip content is Parquet" in validation_error(gzip.compress(parquet()), CSV_GZ, tmp_path)


@pytest.mark.parametrize(
    ("content", "file_format", "finding"),
    [
        (parquet(), CSV_GZ, "it is Parquet, not gzip (csv.gz)"),
        (parquet(), CSV, "it is Parquet, not CSV text"),
        (gzip.compress(TABLE), PARQUET, "it is gzip (csv.gz), not Parquet"),
        (gzip.compress(TABLE), CSV, "it is gzip (csv.gz), not CSV text"),
        (TABLE, PARQUET, "it is CSV text, not Parquet"),
        (TABLE, CSV_GZ, "it is CSV text, not gzip (csv.gz)"),
        (bytes(5000), CSV, "it is binary data, not CSV text"),
        (TABLE.decode().encode("utf-16"), CSV, "it is text in UTF-16, not in UTF-8"),
        (TABLE.decode().encode("utf-16-be"), CSV, "it is text in UTF-16, not in UTF-8"),
        (TABLE.replace(b",", b";"), CSV, "its columns are separated by semicolons, not by commas"),
        (TABLE.replace(b",", b"\t"), CSV, "its columns are separated by tabs, not by commas"),
    ],
    ids=[
        "parquet-gz",
        "parquet-csv",
        "gz-parquet",
        "gz-csv",
        "csv-parquet",
        "csv-gz",
        "zeros-csv",
        "utf16-csv",
        "utf16-be",
        "semicolons",
        "tabs",
    ],
)
def test_a_file_with_the_wrong_extension_is_rejected(
    content: bytes, file_format: FileFormat, finding: str, tmp_path: Path
) -> None:
    assert finding in validation_error(content, file_format, tmp_path)


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (b"\n\r\n\n", "it has only blank lines"),
        (b"a,b,c\n", "it has a header but no rows"),
        (b"a,b,c\n\n\r\n", "it has a header but no rows"),
        (b"a,b,c", "it has a header but no rows"),
        (b"404: Not Found", "it is text without columns"),
        (b"Too many requests.\nPlease wait.\n", "it is text without columns"),
        (b"a,b,c\n1,2", "truncated in the middle of its last line (2 of 3 fields"),
        (b"a,b\n1,2,,\n3,4,,\n5,6,", "truncated in the middle of its last line (3 of 4 fields"),
        (b"a,b\n1,2\n3,4\n" + b"x," * (MAX_LINE_BYTES // 2 + 1), "it has a line longer than 1,048,576 bytes"),
        (b"a,b\n" + b"x," * MAX_LINE_BYTES + b"\n1,2\n", "it has a line longer than 1,048,576 bytes"),
    ],
    ids=[
        "blank lines",
        "only a header",
        "a header and blank lines",
        "a header without line end",
        "a word",
        "words",
        "one row, cut",
        "cut where rows are longer than the header",
        "a last line too long",
        "a line too long",
    ],
)
def test_invalid_or_truncated_csv_is_rejected(content: bytes, finding: str, tmp_path: Path) -> None:
    assert finding in validation_error(content, CSV, tmp_path)
    assert finding in validation_error(gzip.compress(content), CSV_GZ, tmp_path, FileLimits(max_expansion_ratio=10_000))


def test_a_line_of_the_maximum_length_is_accepted(tmp_path: Path) -> None:
    longest = b"1," + b"x" * (MAX_LINE_BYTES - 2)
    assert rows(b"a,b\n" + longest + b"\n" + longest + b"\n", CSV, tmp_path) == 2


def test_a_truncated_gzip_is_rejected(tmp_path: Path) -> None:
    whole = (DATA / "months" / "green_tripdata_2020-10.csv.gz").read_bytes()
    for length in (3, 20, 1000, len(whole) // 2, len(whole) - 9, len(whole) - 8, len(whole) - 1):
        assert "ends early: the file is truncated" in validation_error(whole[:length], CSV_GZ, tmp_path)


def test_a_gzip_with_a_changed_byte_or_a_wrong_checksum_is_rejected(tmp_path: Path) -> None:
    whole = gzip.compress(TABLE * 1000)
    wrong_checksum = whole[:-8] + bytes(4) + whole[-4:]
    assert "its checksum or length does not match" in validation_error(wrong_checksum, CSV_GZ, tmp_path)
    for position in range(12, len(whole) - 8, 7):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        validation_error(bytes(damaged), CSV_GZ, tmp_path)


def test_other_data_after_a_gzip_is_rejected(tmp_path: Path) -> None:
    garbage = gzip.compress(TABLE) + b"<html>"
    assert "data that is not gzip follows it" in validation_error(garbage, CSV_GZ, tmp_path)


def test_a_gzip_bomb_is_stopped_at_the_limits(tmp_path: Path) -> None:
    bomb = gzip.compress(b"a,b\n" + b"1,2\n" * 3_000_000)
    assert "expands to more than 200 times its size" in validation_error(bomb, CSV_GZ, tmp_path)
    by_size = FileLimits(max_expanded_bytes=1_000_000, max_expansion_ratio=10_000)
    assert "expands to more than 1,000,000 bytes" in validation_error(bomb, CSV_GZ, tmp_path, by_size)


def test_a_file_above_the_size_limit_is_rejected(tmp_path: Path) -> None:
    assert "larger than 10 bytes" in validation_error(TABLE, CSV, tmp_path, FileLimits(max_bytes=10))


# --- Parquet ----------------------------------------------------------------------------------------------------------


def test_parquet_rows_are_the_sum_of_all_row_groups(tmp_path: Path) -> None:
    assert rows(parquet(1000, row_group_size=300), PARQUET, tmp_path) == 1000


def test_parquet_without_rows_is_rejected(tmp_path: Path) -> None:
    assert "it is a Parquet file without rows" in validation_error(parquet(0), PARQUET, tmp_path)


@pytest.mark.parametrize("length", [4, 8, 11, 100, -1, -4, -8])
def test_truncated_parquet_is_rejected(length: int, tmp_path: Path) -> None:
    assert "Parquet file without a footer" in validation_error(parquet()[:length], PARQUET, tmp_path)


def test_parquet_with_an_unreadable_footer_is_rejected(tmp_path: Path) -> None:
    whole = parquet()
    footer = int.from_bytes(whole[-8:-4], "little")
    scrambled = whole[: -8 - footer] + b"\xff" * footer + whole[-8:]
    assert "a footer that cannot be read" in validation_error(scrambled, PARQUET, tmp_path)
    too_long = whole[:-8] + b"\xff\xff\xff\x7f" + b"PAR1"
    assert "a footer that cannot be read" in validation_error(too_long, PARQUET, tmp_path)


def test_parquet_with_a_missing_middle_is_rejected(tmp_path: Path) -> None:
    whole = (DATA / "months" / "green_tripdata_2023-01.parquet").read_bytes()
    assert "footer points outside the file" in validation_error(whole[:500_000] + whole[600_000:], PARQUET, tmp_path)


def test_parquet_above_the_expansion_limit_is_rejected(tmp_path: Path) -> None:
    assert "expands to more than" in validation_error(parquet(), PARQUET, tmp_path, FileLimits(max_expanded_bytes=10))

"""Quoted fields, separators and encodings of CSV files."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taxi_assets.errors import InvalidFileError
from taxi_assets.tlc.file_format import TLC_DIALECT, CsvDialect, FileFormat
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.readers import csv_blocks
from taxi_assets.tlc.readers.open_trips import first_rows, open_trips
from taxi_assets.tlc.schema import Column, ColumnType, Service
from taxi_assets.tlc.sources.validate_file import validate_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

OCTOBER = Month(2020, 10)
TEXTS = Service(
    "texts",
    "Texts",
    "three columns of text",
    Month(2020, 1),
    tuple(Column(name, ColumnType.TEXT, f"Column {name}.", required=True) for name in "abc"),
    (),
)
QUOTING = CsvDialect(quoting=True)


def read(
    content: bytes, folder: Path, dialect: CsvDialect = TLC_DIALECT
) -> tuple[list[list[str | None]], list[str], list[str]]:
    """Return the values of all rows, their original text, and the text of malformed rows."""
    path = folder / "m.csv"
    path.write_bytes(content)
    values, originals, malformed = [], list[str](), list[str]()
    with open_trips(path, FileFormat.CSV, replace(TEXTS, dialect=dialect), label="texts", month=OCTOBER) as reader:
        for batch in reader.batches():
            values += [list(row) for row in zip(*(array.to_pylist() for array in batch.arrays), strict=True)]
            originals += batch.original_texts(pa.array(range(len(batch.source_rows)), pa.int64())).to_pylist()
            malformed += [row.text for row in batch.malformed_rows]
    return values, originals, malformed


# --- one line is one row ---------------------------------------------------------------------------------------------


def test_consistently_quoted_fields_may_have_commas(tmp_path: Path) -> None:
    lines = ['1,"Queens, NY",x', "2,Bronx,y", '"3","a ""b"", c",""']
    values, originals, malformed = read("\n".join(["a,b,c", *lines]).encode(), tmp_path)
    assert values == [["1", "Queens, NY", "x"], ["2", "Bronx", "y"], ["3", 'a "b", c', None]]
    assert originals == lines
    assert malformed == []


def test_a_quote_that_is_not_closed_affects_its_line_only(tmp_path: Path) -> None:
    lines = ['1,"x,y', '2,"Queens, NY",z', '3,5" pipe, long,w', "4,5,6", '7,"8,9"']
    values, _, malformed = read("\n".join(["a,b,c", *lines, ""]).encode(), tmp_path)
    assert values == [["1", '"x', "y"], ["2", "Queens, NY", "z"], ["4", "5", "6"]]
    assert malformed == [lines[2], lines[4]]


def test_a_header_may_be_quoted(tmp_path: Path) -> None:
    assert read(b'"a","b","c"\n1,2,3\n', tmp_path)[0] == [["1", "2", "3"]]


fields = st.text(st.sampled_from('ab1 ,;"\t\x1f\xe9'), max_size=6)


@given(rows=st.lists(st.tuples(fields, fields, fields), min_size=1, max_size=8), quoting=st.sampled_from([0, 1]))
@example(rows=[("", ",", '1""1')], quoting=0)
def test_rows_of_a_csv_writer_are_read_with_their_values_or_not_at_all(
    rows: Sequence[Sequence[str]], quoting: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = io.StringIO()
    writer = csv.writer(content, quoting=csv.QUOTE_MINIMAL if quoting == 0 else csv.QUOTE_ALL)
    writer.writerows([["a", "b", "c"], *rows])
    values, originals, malformed = read(content.getvalue().encode(), tmp_path_factory.mktemp("csv"))
    assert len(values) + len(malformed) == len(rows)
    by_text = dict(zip(content.getvalue().splitlines()[1:], rows, strict=True))
    for found, text in zip(values, originals, strict=True):
        for value, written in zip(found, by_text[text], strict=True):
            # Without a quoted comma, quotes stay in the text, doubled. `values/` removes those around a value.
            as_read = (value or "").strip('" \t')
            assert written.strip('" \t') in {as_read, as_read.replace('""', '"')}


# --- dialects --------------------------------------------------------------------------------------------------------

STATIONS = [["1", "W 21 St, at 6 Ave", "x"], ["2", "two\nlines", 'says "hello"'], ["3", "", "é"]] * 40


def write(dialect: CsvDialect, rows: Sequence[Sequence[str]] = STATIONS) -> bytes:
    content = io.StringIO()
    csv.writer(content, delimiter=dialect.delimiter).writerows([["a", "b", "c"], *rows])
    return content.getvalue().encode(dialect.encoding)


@pytest.mark.parametrize("block_bytes", [100, 1 << 22])
@pytest.mark.parametrize(
    "dialect",
    [
        QUOTING,
        CsvDialect(";", quoting=True),
        CsvDialect("\t", quoting=True, encoding="latin-1"),
        CsvDialect(quoting=True, encoding="utf-16"),
    ],
    ids=str,
)
def test_a_dialect_is_read_and_counted(
    dialect: CsvDialect, block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", block_bytes)
    content = write(dialect)
    values, originals, malformed = read(content, tmp_path, dialect)
    assert values == [[value or None for value in row] for row in STATIONS]
    assert f'2{dialect.delimiter}"two\nlines"{dialect.delimiter}"says ""hello"""' in originals
    assert malformed == []
    path = tmp_path / "m.csv"
    assert validate_file(path, FileFormat.CSV, label="", url="", dialect=dialect) == len(STATIONS)
    with path.open("rb") as file:
        assert first_rows(file, FileFormat.CSV, 2, dialect).rows == STATIONS[:2]


def test_a_row_with_another_number_of_fields_is_kept_whole(tmp_path: Path) -> None:
    content = b'a,b,c\n1,"2\n2",3\n4,"5\n5"\n7,8,9\n'
    values, _, malformed = read(content, tmp_path, QUOTING)
    assert values == [["1", "2\n2", "3"], ["7", "8", "9"]]
    assert malformed == ['4,"5\n5"']


def rejection(content: bytes, folder: Path, dialect: CsvDialect) -> str:
    path = folder / "m.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidFileError) as error:
        validate_file(path, FileFormat.CSV, label="texts", url="here", dialect=dialect)
    return str(error.value)


def test_a_file_that_is_not_in_the_dialect_is_rejected(tmp_path: Path) -> None:
    assert "quotes are inconsistent after data row 1" in rejection(b'a,b,c\n1,2,3\n4,"5,6\n7,8,9\n', tmp_path, QUOTING)
    assert "separated by semicolons, not by commas" in rejection(write(CsvDialect(";")), tmp_path, QUOTING)
    ascii_ = CsvDialect(quoting=True, encoding="ascii")
    finding = "not text in the encoding ascii: the byte 0xe9 after 'a,b\\n1,2\\n3,4\\n'"
    assert finding in rejection(b"a,b\n1,2\n3,4\n\xe9,5\n", tmp_path, ascii_)
    assert "truncated in the middle of its last line" in rejection(b"a,b,c\n1,2,3\n4,5", tmp_path, QUOTING)

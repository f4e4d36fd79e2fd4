"""Convert published values to canonical ones, a whole column at a time.

A value that cannot be read becomes null and is marked as unreadable; its row then goes to quarantine. Nothing is
guessed: `0x1F` is not a number, `2021-01-01` is not a time, and 1.5 is not a count. Decimals are rounded half away from
zero, so that a charge and its reversal always cancel. The meaning of a value never depends on other rows.

A column of usual values is converted by one fast cast. If that fails, the values are converted in groups of the same
form, so that unusual values cost little more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.tlc.readers.numeric_columns import numeric_type
from taxi_assets.tlc.schema import Column, ColumnType
from taxi_assets.tlc.values.decimals import build_decimals, round_doubles, round_texts
from taxi_assets.tlc.values.single_values import (
    NULL_ESCAPE,
    NULL_WORDS,
    SCALE,
    is_null_text,
    read_degrees,
    read_distinct,
    read_integer,
)
from taxi_assets.tlc.values.time_texts import read_time_texts
from taxi_assets.tlc.values.typed_values import FIRST_TIME, LAST_TIME, is_convertible, parse_typed
from taxi_assets.tlc.values.working_types import dictionary_array, drop_empty_bitmap

if TYPE_CHECKING:
    from collections.abc import Callable

    from taxi_assets.tlc.values.time_forms import Forms

    _Converter = Callable[[Any], Any]

# `YYYY-MM-DD HH:MM` to `YYYY-MM-DD HH:MM:SS.ffffff`. A shorter text is a date without a time.
_TIME_LENGTHS = (16, 26)
_FIRST_TEXTS = 64
_TRIMMED_CHARACTERS = " \t\"'"
# Texts that pyarrow certainly casts.
_ORDINARY_DOUBLE = r"^-?([0-9]{1,15}(\.[0-9]{0,20})?|\.[0-9]{1,20})([eE][+-]?[0-9]{1,2})?$"
_ORDINARY_INTEGER = r"^-?[0-9]{1,18}(\.0*)?$"
_ZERO_FRACTION = r"\.0*$"
_NULL_WORDS = pa.array(sorted(NULL_WORDS))
_BOOLEAN_CODES = {"true": "1", "t": "1", "false": "0", "f": "0"}


class ParsedColumn(NamedTuple):
    """A published column in its working type. Masks and forms have one value per row."""

    values: Any
    """An Arrow array. A value is null if nothing was published, or if it cannot be read."""
    unreadable: Any | None = None
    """True where the value cannot be read; None if all values can be read."""
    forms: Forms | None = None
    """The `TimeForm` of each time; None if all times are local times without a time zone."""


def parse_column(column: Column, published: Any, as_text: Callable[[], Any] | None = None) -> ParsedColumn:
    """Convert one published column to its working type (`ColumnType.working_type`).

    Args:
        column: The canonical column; its type and codes determine the meaning of a published value.
        published: One value per row, in whatever Arrow type the file has.
        as_text: Returns the text of `published` where a CSV parser has read it as `numeric_type`.
    """
    parsed = _parse(column, published, as_text)
    return parsed._replace(values=drop_empty_bitmap(parsed.values.cast(column.type.working_type)))


def _parse(column: Column, published: Any, as_text: Callable[[], Any] | None) -> ParsedColumn:
    if as_text is not None and published.type == numeric_type(column):
        return _parse_numeric(column, published, as_text)
    distinct_texts = pa.types.is_dictionary(published.type) and pa.types.is_string(published.type.value_type)
    if pa.types.is_dictionary(published.type) and not (distinct_texts and _accepts_dictionary(column)):
        published = published.dictionary_decode()
        distinct_texts = False
    if pa.types.is_null(published.type):
        return ParsedColumn(pa.nulls(len(published), column.type.arrow_type))
    if pa.types.is_boolean(published.type) and column.type in {ColumnType.INTEGER, ColumnType.TEXT}:
        published = published.cast(pa.int8()).cast(pa.string())
    if pa.types.is_large_string(published.type) or pa.types.is_string_view(published.type):
        published = published.cast(pa.string())
    if distinct_texts or pa.types.is_string(published.type):
        return _parse_text(column, published)
    if not is_convertible(published.type, column.type):
        return ParsedColumn(pa.nulls(len(published), column.type.arrow_type), pc.is_valid(published))
    # The codes of a column apply to numbers too, unless all of them are words.
    has_numeric_codes = bool(column.codes) and column.type is ColumnType.INTEGER and numeric_type(column) is None
    if column.type is ColumnType.TEXT or pa.types.is_decimal(published.type) or has_numeric_codes:
        return _parse_text(column, published.cast(pa.string()))
    return ParsedColumn(*parse_typed(column.type, published))


def _parse_numeric(column: Column, numbers: Any, as_text: Callable[[], Any]) -> ParsedColumn:
    if column.type in SCALE:
        wholes, doubtful = round_doubles(numbers, SCALE[column.type])
        if len(doubtful):
            return _parse_text(column, as_text())
        return ParsedColumn(build_decimals(wholes, SCALE[column.type], numbers))
    if column.type is ColumnType.DEGREES and not _all_finite(numbers):
        return _parse_text(column, as_text())
    return ParsedColumn(numbers)


def _all_finite(floats: Any) -> bool:
    return pc.all(pc.is_finite(floats)).as_py() is not False


def _accepts_dictionary(column: Column) -> bool:
    return bool(column.codes) or column.type is ColumnType.TEXT


def _parse_text(column: Column, text: Any) -> ParsedColumn:
    if column.codes:
        return _parse_codes(column, text)
    if column.type is ColumnType.TEXT:
        return ParsedColumn(_trim(text))
    try:
        return ParsedColumn(_convert_usual_texts(column, text))
    except pa.ArrowInvalid:
        text = _drop_null_texts(_trim(text))
    try:
        return ParsedColumn(_convert_usual_texts(column, text))
    except pa.ArrowInvalid:
        return _parse_unusual_texts(column, text)


def _convert_usual_texts(column: Column, text: Any) -> Any:
    convert = _FAST_CONVERTERS[column.type]
    # pyarrow creates an error for each text that it cannot cast, which takes more time than to read it. If most texts
    # are unusual, then so is one of the first.
    convert(text.slice(0, _FIRST_TEXTS))
    return convert(text)


def _parse_unusual_texts(column: Column, text: Any) -> ParsedColumn:
    forms = None
    if column.type is ColumnType.DATETIME:
        values, forms = _times(text)
    else:
        values = _UNUSUAL_CONVERTERS[column.type](text)
    unreadable = pc.and_(pc.is_null(values), pc.is_valid(text))
    return ParsedColumn(values, unreadable if unreadable.true_count else None, forms)


def _trim(text: Any) -> Any:
    if pa.types.is_dictionary(text.type):
        return dictionary_array(_trim(text.dictionary), text.indices)
    trimmed = pc.utf8_trim(text, characters=_TRIMMED_CHARACTERS)
    return pc.if_else(pc.equal(trimmed, pa.scalar("")), pa.scalar(None, pa.string()), trimmed)


def _drop_null_texts(text: Any) -> Any:
    is_null = pc.or_(pc.is_in(pc.ascii_lower(text), value_set=_NULL_WORDS), pc.equal(text, pa.scalar(NULL_ESCAPE)))
    return pc.if_else(is_null, pa.scalar(None, pa.string()), text)


# --- codes -----------------------------------------------------------------------------------------------------------


def _parse_codes(column: Column, text: Any) -> ParsedColumn:
    # Each distinct text is decoded once.
    encoded = text if pa.types.is_dictionary(text.type) else text.dictionary_encode()
    decoded = [_decode(column, value) for value in encoded.dictionary.to_pylist()]
    unreadable_codes = [code for code, (_, readable) in enumerate(decoded) if not readable]
    values = pa.array([value for value, _ in decoded], column.type.arrow_type)
    values = (
        dictionary_array(values, encoded.indices) if column.type is ColumnType.TEXT else values.take(encoded.indices)
    )
    if not unreadable_codes:
        return ParsedColumn(values)
    return ParsedColumn(values, pc.is_in(encoded.indices, value_set=pa.array(unreadable_codes, encoded.indices.type)))


def _decode(column: Column, text: str | None) -> tuple[Any, bool]:
    """Return the value of a text, and whether the text can be read."""
    trimmed = (text or "").strip(_TRIMMED_CHARACTERS)
    if not trimmed:
        return None, True
    lower = trimmed.lower()
    for code in (lower, _BOOLEAN_CODES.get(lower, lower)):
        if code in column.codes:
            return column.codes[code], True
    value = read_integer(trimmed) if column.type is ColumnType.INTEGER else None
    return value, value is not None or is_null_text(trimmed)


# --- fast conversion of whole columns, which raises pyarrow.ArrowInvalid if one value is unusual ---------------------


def _text_to_integer(text: Any) -> Any:
    # pyarrow would read 0x1F as 31.
    if _is_hexadecimal(text):
        raise pa.ArrowInvalid("hexadecimal")
    try:
        return pc.cast(text, pa.int64())
    except pa.ArrowInvalid:
        # A publisher may have stored a count as a float: 1.0.
        return pc.cast(pc.replace_substring_regex(text, _ZERO_FRACTION, ""), pa.int64())


def _is_hexadecimal(text: Any) -> bool:
    # Searching the whole buffer is fast. The buffer may be shared with other slices, so a hit is confirmed on the
    # texts.
    buffer = text.buffers()[2]
    raw = b"" if buffer is None else buffer.to_pybytes()
    if b"x" not in raw and b"X" not in raw:
        return False
    return bool(pc.any(pc.match_substring(text, "x", ignore_case=True)).as_py())


def _text_to_decimal(scale: int) -> _Converter:
    def convert(text: Any) -> Any:
        floats = pc.cast(text, pa.float64())
        wholes, doubtful = round_doubles(floats, scale)
        if len(doubtful):
            wholes[doubtful], readable = round_texts(text.take(pa.array(doubtful)), scale)
            if not readable.all():
                raise pa.ArrowInvalid("not decimal numbers that fit")
        return build_decimals(wholes, scale, floats)

    return convert


def _text_to_datetime(text: Any) -> Any:
    lengths = pc.min_max(pc.binary_length(text)).as_py()
    if lengths["min"] is not None and not (_TIME_LENGTHS[0] <= lengths["min"] and lengths["max"] <= _TIME_LENGTHS[1]):
        raise pa.ArrowInvalid("not a date with a time")
    times = pc.cast(text, pa.timestamp("us"))
    if pc.any(pc.or_(pc.less(times, FIRST_TIME), pc.greater(times, LAST_TIME))).as_py():
        raise pa.ArrowInvalid("not a year from 1 to 9999")
    return times


def _text_to_degrees(text: Any) -> Any:
    floats = pc.cast(text, pa.float64())
    if not _all_finite(floats):
        raise pa.ArrowInvalid("not a finite number")
    return floats


_FAST_CONVERTERS: dict[ColumnType, _Converter] = {
    ColumnType.INTEGER: _text_to_integer,
    ColumnType.MONEY: _text_to_decimal(SCALE[ColumnType.MONEY]),
    ColumnType.MILES: _text_to_decimal(SCALE[ColumnType.MILES]),
    ColumnType.DATETIME: _text_to_datetime,
    ColumnType.DEGREES: _text_to_degrees,
}


# --- conversion of columns with unusual or unreadable texts ----------------------------------------------------------


def _times(text: Any) -> tuple[Any, Forms]:
    valid = np.asarray(text.is_valid())
    read = read_time_texts(text.drop_null())
    microseconds = np.zeros(len(text), np.int64)
    readable = np.zeros(len(text), bool)
    forms = np.zeros(len(text), np.int8)
    microseconds[valid], readable[valid], forms[valid] = read
    return pa.array(microseconds, mask=~readable).cast(pa.timestamp("us")), forms


def _unusual_integers(text: Any) -> Any:
    return _convert_by_form(
        text,
        _ORDINARY_INTEGER,
        lambda ordinary: pc.cast(pc.replace_substring_regex(ordinary, _ZERO_FRACTION, ""), pa.int64()),
        lambda others: read_distinct(others, read_integer, pa.int64()),
    )


def _unusual_degrees(text: Any) -> Any:
    return _convert_by_form(
        text,
        _ORDINARY_DOUBLE,
        lambda ordinary: pc.cast(ordinary, pa.float64()),
        lambda others: read_distinct(others, read_degrees, pa.float64()),
    )


def _unusual_decimals(scale: int) -> _Converter:
    def convert(text: Any) -> Any:
        ordinary = np.asarray(pc.fill_null(pc.match_substring_regex(text, _ORDINARY_DOUBLE), pa.scalar(False)))
        floats = pc.cast(pc.if_else(pa.array(ordinary), text, pa.scalar(None, text.type)), pa.float64())
        wholes, doubtful = round_doubles(floats, scale)
        null = np.asarray(text.is_null())
        by_text = np.union1d(doubtful, np.flatnonzero(~ordinary & ~null))
        wholes[by_text], readable = round_texts(text.take(pa.array(by_text)), scale)
        null[by_text[~readable]] = True
        return build_decimals(wholes, scale, null)

    return convert


def _convert_by_form(text: Any, ordinary_form: str, convert: _Converter, convert_others: _Converter) -> Any:
    """Convert texts of the ordinary form as a whole, and the distinct others one by one."""
    ordinary = pc.match_substring_regex(text, ordinary_form)
    values = convert(pc.if_else(ordinary, text, pa.scalar(None, text.type)))
    others = pc.fill_null(pc.invert(ordinary), pa.scalar(False))
    return pc.replace_with_mask(values, others, convert_others(text.filter(others)))


_UNUSUAL_CONVERTERS: dict[ColumnType, _Converter] = {
    ColumnType.INTEGER: _unusual_integers,
    ColumnType.MONEY: _unusual_decimals(SCALE[ColumnType.MONEY]),
    ColumnType.MILES: _unusual_decimals(SCALE[ColumnType.MILES]),
    ColumnType.DEGREES: _unusual_degrees,
}

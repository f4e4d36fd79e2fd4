"""Convert published values to canonical ones, a whole column at a time where possible.

A value that cannot be read becomes null and is marked as unreadable; its row then goes to quarantine. Nothing is
guessed: `0x1F` is not a number, `2021-01-01` is not a time, and 1.5 is not a count. Decimals are rounded half away from
zero, so that a charge and its reversal always cancel. The meaning of a value never depends on other rows.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.tlc.cleaning.single_values import (
    MAXIMUM_DECIMAL_DIGITS,
    SCALE,
    decimal_reader,
    read_integer,
    read_value,
)
from taxi_assets.tlc.cleaning.working_types import dictionary_array, drop_empty_bitmap
from taxi_assets.tlc.readers.numeric_columns import numeric_type
from taxi_assets.tlc.schema import Column, ColumnType

if TYPE_CHECKING:
    from collections.abc import Callable

    _Converter = Callable[[Any], Any]

# `YYYY-MM-DD HH:MM` to `YYYY-MM-DD HH:MM:SS.ffffff`. A shorter text is a date without a time.
_TIME_LENGTHS = (16, 26)
_TRIMMED_CHARACTERS = " \t\"'"
_MAXIMUM_WHOLE_FLOAT = 2**53
# A double this close to a whole unit (a cent, or a thousandth of a mile) rounds to it. Otherwise it may be near a half,
# and its text determines the rounding.
_ROUNDING_TOLERANCE = 1e-4
# Doubles are rounded in blocks that fit into the processor's cache.
_ROUNDING_BLOCK = 16_384
# Python, pandas and the warehouses support the years 1 to 9999.
_FIRST_TIME = pa.scalar(dt.datetime.combine(dt.date.min, dt.time.min), pa.timestamp("us"))
_LAST_TIME = pa.scalar(dt.datetime.combine(dt.date.max, dt.time.max), pa.timestamp("us"))


def parse_column(column: Column, published: Any, as_text: Callable[[], Any] | None = None) -> tuple[Any, Any | None]:
    """Convert one published column to its working type (`ColumnType.working_type`).

    Args:
        column: The canonical column; its type and codes determine the meaning of a published value.
        published: One value per row, in whatever Arrow type the file has.
        as_text: Returns the text of `published` where a CSV parser has read it as `numeric_type`.

    Returns:
        The values and a mask. A value is null if nothing was published, or if it cannot be read. The mask has one
        boolean per row, true where the value cannot be read; it is None if all values can be read.
    """
    values, unreadable = _parse(column, published, as_text)
    return drop_empty_bitmap(values.cast(column.type.working_type)), unreadable


def _parse(column: Column, published: Any, as_text: Callable[[], Any] | None) -> tuple[Any, Any | None]:
    if as_text is not None and published.type == numeric_type(column):
        return _parse_numeric(column, published, as_text)
    distinct_texts = pa.types.is_dictionary(published.type) and pa.types.is_string(published.type.value_type)
    if pa.types.is_dictionary(published.type) and not (distinct_texts and _accepts_dictionary(column)):
        published = published.dictionary_decode()
        distinct_texts = False
    if pa.types.is_null(published.type):
        return pa.nulls(len(published), column.type.arrow_type), None
    if pa.types.is_boolean(published.type):
        published = published.cast(pa.int8()).cast(pa.string())
    if pa.types.is_large_string(published.type) or pa.types.is_string_view(published.type):
        published = published.cast(pa.string())
    if distinct_texts or pa.types.is_string(published.type):
        return _parse_text(column, published)
    if not _is_convertible(published.type, column.type):
        return pa.nulls(len(published), column.type.arrow_type), pc.is_valid(published)
    if column.type is ColumnType.TEXT or pa.types.is_decimal(published.type):
        return _parse_text(column, published.cast(pa.string()))
    return _parse_native(column, published)


def _parse_numeric(column: Column, numbers: Any, as_text: Callable[[], Any]) -> tuple[Any, Any | None]:
    try:
        if column.type in SCALE:
            return _floats_to_decimal(numbers, SCALE[column.type], _reject_text), None
        if column.type is ColumnType.DEGREES:
            return _require_finite(numbers), None
    except pa.ArrowInvalid:
        return _parse_text(column, as_text())
    return numbers, None


def _reject_text(_index: int) -> str:
    raise pa.ArrowInvalid("the double does not determine the decimal")


# --- text ------------------------------------------------------------------------------------------------------------


def _accepts_dictionary(column: Column) -> bool:
    return bool(column.codes) or column.type is ColumnType.TEXT


def _parse_text(column: Column, text: Any) -> tuple[Any, Any | None]:
    if column.codes:
        return _parse_codes(column, text)
    convert = _TEXT_CONVERTERS[column.type]
    try:
        return convert(text), None
    except pa.ArrowInvalid:
        return _convert_by_bisection(_trim(text), convert, lambda single: _read_single(column, single))


def _read_single(column: Column, single: Any) -> Any:
    return pa.array([read_value(column.type, single[0].as_py())], _converted_type(column))


def _parse_codes(column: Column, text: Any) -> tuple[Any, Any | None]:
    # There are few distinct texts, so each is decoded once.
    encoded = text if pa.types.is_dictionary(text.type) else text.dictionary_encode()
    decoded = [_decode(column, value) for value in encoded.dictionary.to_pylist()]
    unreadable_codes = [code for code, (_, readable) in enumerate(decoded) if not readable]
    values = pa.array([value for value, _ in decoded], column.type.arrow_type)
    values = (
        dictionary_array(values, encoded.indices) if column.type is ColumnType.TEXT else values.take(encoded.indices)
    )
    if not unreadable_codes:
        return values, None
    return values, pc.is_in(encoded.indices, value_set=pa.array(unreadable_codes, encoded.indices.type))


def _decode(column: Column, text: str | None) -> tuple[Any, bool]:
    """Return the value of a text, and whether the text can be read."""
    trimmed = (text or "").strip(_TRIMMED_CHARACTERS)
    if not trimmed:
        return None, True
    if trimmed.lower() in column.codes:
        return column.codes[trimmed.lower()], True
    if column.type is ColumnType.INTEGER:
        value = read_integer(trimmed)
        return value, value is not None
    return None, False


def _trim(text: Any) -> Any:
    if pa.types.is_dictionary(text.type):
        return dictionary_array(_trim(text.dictionary), text.indices)
    trimmed = pc.utf8_trim(text, characters=_TRIMMED_CHARACTERS)
    return pc.if_else(pc.equal(trimmed, pa.scalar("")), pa.scalar(None, pa.string()), trimmed)


def _convert_by_bisection(published: Any, convert: _Converter, convert_single: _Converter) -> tuple[Any, Any | None]:
    """Convert a column in which some values cannot be converted.

    One bad value makes the cast of the whole array fail. Bisecting the array finds the bad value in a few dozen casts.

    Args:
        published: The values to convert.
        convert: Converts an array, or raises `pyarrow.ArrowInvalid`.
        convert_single: Converts an array of one value that `convert` rejects; returns null if it cannot be read.

    Returns:
        The values, and the mask of unreadable values (None if all can be read).
    """

    def bisect(chunk: Any) -> list[Any]:
        try:
            return [convert(chunk)]
        except pa.ArrowInvalid:
            if len(chunk) == 1:
                return [convert_single(chunk)]
        middle = len(chunk) // 2
        return bisect(chunk.slice(0, middle)) + bisect(chunk.slice(middle))

    values = pa.concat_arrays(bisect(published))
    unreadable = pc.and_(pc.is_null(values), pc.is_valid(published))
    return values, unreadable if pc.any(unreadable).as_py() else None


def _text_to_integer(text: Any) -> Any:
    # pyarrow would read 0x1F as 31.
    if _is_hexadecimal(text):
        raise pa.ArrowInvalid("hexadecimal")
    try:
        return pc.cast(text, pa.int64())
    except pa.ArrowInvalid:
        # A publisher may have stored a count as a float: 1.0.
        return pc.cast(pc.replace_substring_regex(text, r"\.0*$", ""), pa.int64())


def _is_hexadecimal(text: Any) -> bool:
    # Searching the whole buffer is fast. The buffer may be shared with other slices, so a hit is confirmed on the
    # texts.
    buffer = text.buffers()[2]
    raw = b"" if buffer is None else buffer.to_pybytes()
    if b"x" not in raw and b"X" not in raw:
        return False
    return bool(pc.any(pc.match_substring(text, "x", ignore_case=True)).as_py())


def _text_to_decimal(scale: int) -> Callable[[Any], Any]:
    def convert(text: Any) -> Any:
        floats = pc.cast(text, pa.float64())
        return _floats_to_decimal(floats, scale, lambda index: text[index].as_py())

    return convert


def _text_to_datetime(text: Any) -> Any:
    lengths = pc.min_max(pc.binary_length(text)).as_py()
    if lengths["min"] is not None and not (_TIME_LENGTHS[0] <= lengths["min"] and lengths["max"] <= _TIME_LENGTHS[1]):
        raise pa.ArrowInvalid("not a date with a time")
    return _require_calendar_year(pc.cast(text, pa.timestamp("us")))


def _require_calendar_year(times: Any) -> Any:
    if pc.any(pc.or_(pc.less(times, _FIRST_TIME), pc.greater(times, _LAST_TIME))).as_py():
        raise pa.ArrowInvalid("not a year from 1 to 9999")
    return times


def _text_to_degrees(text: Any) -> Any:
    return _require_finite(pc.cast(text, pa.float64()))


def _require_finite(values: Any) -> Any:
    if pc.all(pc.is_finite(values)).as_py() is False:
        raise pa.ArrowInvalid("not a finite number")
    return values


_TEXT_CONVERTERS: dict[ColumnType, _Converter] = {
    ColumnType.INTEGER: _text_to_integer,
    ColumnType.MONEY: _text_to_decimal(SCALE[ColumnType.MONEY]),
    ColumnType.MILES: _text_to_decimal(SCALE[ColumnType.MILES]),
    ColumnType.DATETIME: _text_to_datetime,
    ColumnType.DEGREES: _text_to_degrees,
    ColumnType.TEXT: _trim,
}


# --- typed values of Parquet files -----------------------------------------------------------------------------------


def _parse_native(column: Column, published: Any) -> tuple[Any, Any | None]:
    if pa.types.is_floating(published.type):
        published = published.cast(pa.float64())
    try:
        return _convert_native(column, published), None
    except pa.ArrowInvalid:
        if pa.types.is_floating(published.type):
            # pandas writes missing values as NaN.
            published = pc.if_else(pc.is_nan(published), pa.scalar(None, pa.float64()), published)
        return _convert_by_bisection(
            published,
            lambda chunk: _convert_native(column, chunk),
            lambda single: pa.nulls(len(single), _converted_type(column)),
        )


def _converted_type(column: Column) -> Any:
    """Return the type that converters return: the working type, but plain strings for text."""
    return pa.string() if column.type is ColumnType.TEXT else column.type.working_type


def _is_convertible(published_type: Any, target: ColumnType) -> bool:
    types = pa.types
    if target is ColumnType.DATETIME:
        return bool(types.is_timestamp(published_type) and published_type.tz is None)
    return any(is_type(published_type) for is_type in (types.is_integer, types.is_floating, types.is_decimal))


def _convert_native(column: Column, published: Any) -> Any:
    if column.type is ColumnType.DATETIME:
        # Nanoseconds are truncated: taxi meters do not record them.
        return _require_calendar_year(pc.cast(published, pa.timestamp("us"), safe=published.type.unit != "ns"))
    if pa.types.is_floating(published.type):
        if column.type is ColumnType.INTEGER:
            return _floats_to_integer(published)
        if column.type in SCALE:
            # repr() returns the float's shortest text, which is the publisher's text before conversion to binary.
            return _floats_to_decimal(published, SCALE[column.type], lambda index: repr(published[index].as_py()))
        if column.type is ColumnType.DEGREES:
            return _require_finite(published)
    if column.type in SCALE and pa.types.is_integer(published.type):
        published = pc.cast(published, pa.decimal128(21, 0))
    # The cast to the canonical type checks that the value fits the precision.
    return pc.cast(pc.cast(published, column.type.arrow_type), column.type.working_type)


def _floats_to_integer(floats: Any) -> Any:
    values = np.asarray(pc.fill_null(floats, 0.0))
    if not (np.isfinite(values).all() and (np.abs(values) < _MAXIMUM_WHOLE_FLOAT).all() and (values % 1 == 0).all()):
        raise pa.ArrowInvalid("not whole numbers")
    return pc.cast(floats, pa.int64())


def _floats_to_decimal(floats: Any, scale: int, exact_text: Callable[[int], str]) -> Any:
    """Round doubles to decimal64 with 12 digits, half away from zero.

    pc.round is wrong on floats: 1.005 becomes 1.00. A cast of text to decimal rejects excess digits.

    Args:
        floats: An array of doubles.
        scale: The number of decimal places.
        exact_text: Returns the text of the value at an index, for doubles that do not determine the decimal.

    Raises:
        pyarrow.ArrowInvalid: A value is not finite or has too many digits.
    """
    limit = 10**MAXIMUM_DECIMAL_DIGITS
    doubles = np.asarray(floats.fill_null(0.0) if floats.null_count else floats)
    wholes = np.empty(len(doubles), np.int64)
    scratch = np.empty((2, min(_ROUNDING_BLOCK, len(doubles))))
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, len(doubles), _ROUNDING_BLOCK):
            block = doubles[start : start + _ROUNDING_BLOCK]
            distance, whole = scratch[:, : len(block)]
            np.rint(np.multiply(block, 10.0**scale, out=distance), out=whole)
            np.subtract(distance, whole, out=distance)
            # In most blocks, all values are within the tolerance, so none is tested individually. A NaN makes
            # `all_close` false.
            all_close = distance.min() > -_ROUNDING_TOLERANCE and distance.max() < _ROUNDING_TOLERANCE
            if not (all_close and whole.min() > -limit and whole.max() < limit):
                doubtful = ~((np.abs(distance) < _ROUNDING_TOLERANCE) & (np.abs(whole) < limit))
                _round_exactly(whole, doubtful, start, scale, exact_text)
            wholes[start : start + _ROUNDING_BLOCK] = whole
    integers = pa.array(wholes)
    if floats.null_count and floats.offset == 0:
        integers = pa.Array.from_buffers(integers.type, len(integers), [floats.buffers()[0], integers.buffers()[1]])
    elif floats.null_count:
        integers = pc.if_else(pc.is_valid(floats), integers, pa.scalar(None, integers.type))
    return integers.view(pa.decimal64(MAXIMUM_DECIMAL_DIGITS, scale))


def _round_exactly(
    whole: np.ndarray[Any, np.dtype[np.float64]],
    doubtful: np.ndarray[Any, np.dtype[np.bool_]],
    first: int,
    scale: int,
    exact_text: Callable[[int], str],
) -> None:
    read = decimal_reader(scale)
    for index in np.flatnonzero(doubtful).tolist():
        exact = read(exact_text(first + index))
        if exact is None:
            raise pa.ArrowInvalid("not a decimal number that fits")
        whole[index] = int(exact.scaleb(scale))

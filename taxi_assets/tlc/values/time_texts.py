"""Read times that were published as text, in the forms that common tools write.

Texts are not read one by one. Texts that differ only in their digits have the same shape, and a column has few shapes.
Each shape is matched once, which gives the positions of year, month and so on; numpy then reads the digits at these
positions for all texts of the shape.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.tlc.values.new_york import NEW_YORK_NAMES, UTC_NAMES, utc_offsets
from taxi_assets.tlc.values.time_forms import TimeForm, read_epochs

if TYPE_CHECKING:
    from taxi_assets.tlc.values.time_forms import Forms, Integers, Mask

    Bytes = np.ndarray[Any, np.dtype[np.uint8]]

_SPACE = r"[\t-\r\x1c-\x20]"
_EASTERN_OFFSET_HOURS = {"EST": -5, "EDT": -4}
_NAMES = sorted({*UTC_NAMES, *NEW_YORK_NAMES, *_EASTERN_OFFSET_HOURS}, reverse=True)
_ZONES = "|".join(re.escape(name) for name in _NAMES if not re.search(r"\d", name))
# Shapes of texts. In a shape, each digit is a 0.
_YEAR_FIRST = (  # 2021-03-01 04:36:54, with T, fractions of a second and a zone
    rf"(?P<year>\d{{4}})-(?P<month>\d{{1,2}})-(?: (?=\d\D))?(?P<day>\d{{1,2}})(?:{_SPACE}*T{_SPACE}*|{_SPACE}+)"
    r"(?P<hour>\d{1,2}):(?P<minute>\d{1,2})(?::(?P<second>\d{1,2})(?:\.(?P<fraction>\d{1,9}))?)?"
    rf"(?: ?(?P<zone>{_ZONES})| ?(?P<sign>[+-])(?P<zone_hour>\d\d)(?::?(?P<zone_minute>\d\d))?)?"
)
_MONTH_FIRST = (  # 03/01/2021 04:36:54 AM (NYC Open Data), and 3/1/2021 4:36 (spreadsheets)
    r"(?P<month>\d{1,2})/(?P<day>\d{1,2})/(?P<year>\d{4}) +(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d))?"
    r"(?: ?(?P<half>[AaPp][Mm]))?"
)
_EPOCH = r"(?P<epoch>\d{9,19})"  # 1614573414: a number of seconds or of smaller units since 1970
_SHAPES = tuple(re.compile(pattern, re.ASCII) for pattern in (_YEAR_FIRST, _MONTH_FIRST, _EPOCH))
_LONGEST_TEXT = 60  # characters
_ZERO = ord("0")
_HOUR = 3_600_000_000
_FRACTION_DIGITS = 6


class ReadTimes(NamedTuple):
    """The times of some texts, one of each per text."""

    microseconds: Integers
    """Microseconds since 1970 as New York's clocks show them; 0 where the text cannot be read."""
    readable: Mask
    forms: Forms


def read_time_texts(texts: Any) -> ReadTimes:
    """Read times. Digits beyond microseconds are truncated.

    A text with the mark of a zone is readable if New York's clocks showed this time at that instant. A time in UTC, or
    a number since 1970, is returned as it is, as if it was a local time: only the whole file shows whether it is one.

    Args:
        texts: An Arrow array of strings without nulls.
    """
    microseconds = np.zeros(len(texts), np.int64)
    forms = np.zeros(len(texts), np.int8)
    readable = np.zeros(len(texts), bool)
    short = pc.less_equal(pc.binary_length(texts), pa.scalar(_LONGEST_TEXT))
    candidates = np.flatnonzero(pc.and_(pc.string_is_ascii(texts), short))
    if not len(candidates):
        return ReadTimes(microseconds, readable, forms)
    characters = _to_matrix(texts.take(pa.array(candidates)))
    for rows, match in _group_by_shape(characters):
        found = _read_shape(characters[rows], match)
        targets = candidates[rows]
        microseconds[targets], readable[targets], forms[targets] = found
    microseconds[~readable] = 0
    forms[~readable] = TimeForm.LOCAL
    return ReadTimes(microseconds, readable, forms)


def _to_matrix(texts: Any) -> Bytes:
    """Return one line of bytes per text, padded with spaces."""
    width = pc.max(pc.binary_length(texts)).as_py()
    padded = pc.ascii_rpad(texts, width, " ")
    return np.frombuffer(padded.buffers()[2], np.uint8, len(texts) * width).reshape(len(texts), width)


def _group_by_shape(characters: Bytes) -> list[tuple[Integers, re.Match[str]]]:
    count, width = characters.shape
    if not width:
        return []
    shapes = np.where(characters - _ZERO < 10, np.uint8(_ZERO), characters)  # other bytes are larger, or wrap around
    encoded = pa.Array.from_buffers(pa.binary(width), count, [None, pa.py_buffer(shapes)]).dictionary_encode()
    codes = np.asarray(encoded.indices)
    in_order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(encoded.dictionary)))
    groups = []
    for shape, rows in zip(encoded.dictionary.to_pylist(), np.split(in_order, ends[:-1]), strict=True):
        text = shape.decode().rstrip(" ")
        match = next(filter(None, (pattern.fullmatch(text) for pattern in _SHAPES)), None)
        if match:
            groups.append((rows, match))
    return groups


def _read_shape(characters: Bytes, match: re.Match[str]) -> tuple[Integers, Mask, Forms]:
    fields = {
        name: _digits(characters, match, name) for name, text in match.groupdict().items() if text and text.isdigit()
    }
    if "epoch" in fields:
        microseconds, forms = read_epochs(fields["epoch"])
        return microseconds, (forms != TimeForm.LOCAL) & (characters[:, 0] != _ZERO), forms
    microseconds, readable = _compose(fields, match)
    names = match.groupdict()
    form = TimeForm.LOCAL if match.string[4] == "-" else TimeForm.MONTH_FIRST
    forms = np.full(len(characters), form, np.int8)
    zone = names.get("zone")
    if zone in UTC_NAMES:
        forms[:] = TimeForm.UTC
    elif zone in NEW_YORK_NAMES:
        forms[:] = TimeForm.NEW_YORK_ZONE
    elif zone or names.get("sign"):
        offsets = _offsets(fields, names, len(characters))
        of_new_york = utc_offsets(microseconds - offsets) == offsets
        forms = np.where(offsets == 0, TimeForm.UTC, TimeForm.NEW_YORK_ZONE).astype(np.int8)
        readable &= of_new_york | (offsets == 0)
    return microseconds, readable, forms


def _digits(characters: Bytes, match: re.Match[str], name: str) -> Integers:
    """Return the number in a field of every text; a fraction in microseconds."""
    start, end = match.span(name)
    missing = 0
    if name == "fraction":
        end = min(end, start + _FRACTION_DIGITS)
        missing = start + _FRACTION_DIGITS - end
    number: Integers = np.zeros(len(characters), np.int64)
    for position in range(start, end):
        number *= 10
        number += characters[:, position] - _ZERO
    number *= 10**missing
    return number


def _compose(fields: dict[str, Integers], match: re.Match[str]) -> tuple[Integers, Mask]:
    """Return microseconds since 1970, and which dates and times exist."""
    year, month, day, hour, minute = (fields[name] for name in ("year", "month", "day", "hour", "minute"))
    second = fields.get("second", np.zeros_like(year))
    half = match.groupdict().get("half")
    last_hour = 12 if half else 23
    readable = (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1)
    readable &= (hour >= (1 if half else 0)) & (hour <= last_hour) & (minute <= 59) & (second <= 59)
    if half:
        hour = hour % 12 + (12 if half.lower() == "pm" else 0)
    months = ((year - 1970) * 12 + np.clip(month, 1, 12) - 1).astype("datetime64[M]")
    first_days, next_days = months.astype("datetime64[D]"), (months + 1).astype("datetime64[D]")
    readable &= day <= (next_days - first_days).astype(np.int64)
    days = first_days.astype(np.int64) + day - 1
    seconds = ((days * 24 + hour) * 60 + minute) * 60 + second
    return seconds * 1_000_000 + fields.get("fraction", 0), readable


def _offsets(fields: dict[str, Integers], names: dict[str, str | None], count: int) -> Integers:
    if names["zone"]:
        return np.full(count, _EASTERN_OFFSET_HOURS[names["zone"]] * _HOUR, np.int64)
    minutes = fields["zone_hour"] * 60 + fields.get("zone_minute", 0)
    return minutes * 60_000_000 * (-1 if names["sign"] == "-" else 1)

"""Convert published values to JSON.

The `original` of a quarantined Parquet row is JSON text. Previews and examples of unknown columns show the values.
"""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_UTC_OFFSET = "+00:00"
_ZERO_FRACTION = re.compile(r"\.0+$")
encode_json = json.JSONEncoder(default=str, ensure_ascii=False).encode
"""Return a value as JSON text. Types that JSON does not have become their `str`."""


def json_texts(array: Any) -> Any:
    """Return the JSON of each value, as `to_json_value` converts it, as an array of strings.

    Integers, dates and most times are converted as a whole column. Of floats and texts, each distinct value is
    converted once. Values of other types are converted one by one.
    """
    types = pa.types
    if types.is_integer(array.type):
        return array.cast(pa.string()).fill_null("null")
    if types.is_timestamp(array.type) and array.type.tz in {None, "UTC"}:
        with suppress(pa.ArrowInvalid):  # a value in another unit than microseconds has a fraction of a second
            return _quote(_time_texts(_drop_zone(array)), _UTC_OFFSET if array.type.tz else "")
    if types.is_date32(array.type):
        return _quote(array.cast(pa.string()))
    if types.is_float64(array.type):
        bits = array.view(pa.int64()).dictionary_encode()  # bits distinguish -0.0 from 0.0
        distinct = map(_json_number, bits.dictionary.view(pa.float64()).to_pylist())
        return pa.array(distinct, pa.string()).take(bits.indices).fill_null("null")
    if types.is_dictionary(array.type) or types.is_string(array.type):
        texts = array.dictionary_decode() if types.is_dictionary(array.type) else array
        texts = texts.dictionary_encode()  # encode again: the old dictionary may contain texts of other rows
        distinct = map(encode_json, texts.dictionary.to_pylist())
        return pa.array(distinct, pa.string()).take(texts.indices).fill_null("null")
    return pa.array([encode_json(to_json_value(value)) for value in array], pa.string())


def _quote(texts: Any, suffix: str = "") -> Any:
    """Return texts that need no escapes as JSON."""
    quoted = pc.binary_join_element_wise(pa.scalar('"'), texts, pa.scalar(f'{suffix}"'), pa.scalar(""))
    return quoted.fill_null("null")


def _time_texts(times: Any) -> Any:
    if times.type.unit == "us":
        return pc.replace_substring_regex(times.cast(pa.string()), _ZERO_FRACTION.pattern, "")
    return times.cast(pa.timestamp("s")).cast(pa.string())


def _drop_zone(times: Any) -> Any:
    return times.cast(pa.int64()).cast(pa.timestamp(times.type.unit))


def _json_number(number: float) -> str:
    return repr(number) if math.isfinite(number) else f'"{number}"'


def to_json_value(scalar: Any) -> Any:
    """Return an Arrow scalar as a Python value that `encode_json` can encode.

    Times outside Python's calendar or in an unknown zone, and numbers that are not finite, become text.
    """
    try:
        value = scalar.as_py()
    except (OverflowError, ValueError, KeyError):
        # Times in a zone are shown in UTC: pyarrow would need the system's database of zones. Drop a zero fraction, as
        # `str` of a Python time does.
        has_zone = pa.types.is_timestamp(scalar.type) and scalar.type.tz is not None
        text = _ZERO_FRACTION.sub("", (_drop_zone(scalar) if has_zone else scalar).cast(pa.string()).as_py())
        return text + _UTC_OFFSET if has_zone else text
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value

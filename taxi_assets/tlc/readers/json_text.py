"""Values of published Parquet as JSON: the `original` text of a quarantined row."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_ZERO_FRACTION = re.compile(r"\.0+$")
encode_json = json.JSONEncoder(default=str, ensure_ascii=False).encode


def json_texts(array: Any) -> Any:
    """The JSON of each value, as `plain` gives it: by whole columns where possible, else once per distinct value."""
    types = pa.types
    if types.is_integer(array.type):
        return array.cast(pa.string()).fill_null("null")
    if types.is_timestamp(array.type) and array.type.tz is None:
        with suppress(pa.ArrowInvalid):  # some have a fraction of a second
            texts = array.cast(pa.timestamp("s")).cast(pa.string())
            return pc.binary_join_element_wise(pa.scalar('"'), texts, pa.scalar('"'), pa.scalar("")).fill_null("null")
    if types.is_float64(array.type):
        bits = array.view(pa.int64()).dictionary_encode()  # -0.0 equals 0.0, but not in its bits
        distinct = map(_json_number, bits.dictionary.view(pa.float64()).to_pylist())
        return pa.array(distinct, pa.string()).take(bits.indices).fill_null("null")
    if types.is_dictionary(array.type) or types.is_string(array.type):
        texts = array.dictionary_decode() if types.is_dictionary(array.type) else array
        texts = texts.dictionary_encode()  # of these rows alone
        distinct = map(encode_json, texts.dictionary.to_pylist())
        return pa.array(distinct, pa.string()).take(texts.indices).fill_null("null")
    return pa.array([encode_json(to_json_value(value)) for value in array], pa.string())


def _json_number(number: float) -> str:
    return repr(number) if math.isfinite(number) else f'"{number}"'


def to_json_value(scalar: Any) -> Any:
    """A value as JSON can hold it; as text where Python has no such time, or JSON no such number."""
    try:
        value = scalar.as_py()
    except (OverflowError, ValueError):
        # Like Python's own times: without a fraction of a second that is zero.
        return _ZERO_FRACTION.sub("", scalar.cast(pa.string()).as_py())
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value

"""The BigQuery double's errors and types, and the REST API's representation of values.

It follows the pages "Error messages" and "Data types" of the BigQuery documentation, and the REST reference of
tabledata.list.
"""

from __future__ import annotations

import base64
import datetime as dt
import math
from collections.abc import Callable  # noqa: TC003  (the tables below are annotated at runtime)
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, Final

Resource = dict[str, Any]
"""A JSON object of the REST API."""

STATUS_OF_REASON: Final = {
    "accessDenied": 403,
    "authError": 401,
    "backendError": 503,
    "badGateway": 502,
    "billingNotEnabled": 403,
    "bytesBilledLimitExceeded": 400,
    "conditionNotMet": 412,
    "duplicate": 409,
    "internalError": 500,
    "invalid": 400,
    "invalidQuery": 400,
    "jobBackendError": 400,
    "jobInternalError": 400,
    "jobRateLimitExceeded": 400,
    "notFound": 404,
    "notImplemented": 501,
    "quotaExceeded": 403,
    "rateLimitExceeded": 403,
    "resourceInUse": 400,
    "resourcesExceeded": 400,
    "responseTooLarge": 403,
    "stopped": 400,
    "timeout": 400,
}
"""The HTTP status for a reason, as the page "Error messages" of BigQuery's documentation lists them."""

_STATUS_NAMES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
}

_STANDARD_NAMES: Final = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "DECIMAL": "NUMERIC"}

DUCKDB_TYPES: Final = {
    "INTEGER": "BIGINT",
    "FLOAT": "DOUBLE",
    "NUMERIC": "DECIMAL(38,9)",
    "STRING": "VARCHAR",
    "BYTES": "BLOB",
    "DATE": "DATE",
    "DATETIME": "TIMESTAMP",
    "TIMESTAMP": "TIMESTAMP WITH TIME ZONE",
    "TIME": "TIME",
    "BOOLEAN": "BOOLEAN",
}
"""The column types that this double supports, and the DuckDB types that store them."""

LOGICAL_BYTES: Final = {"BOOLEAN": 1, "NUMERIC": 16}
"""Bytes per value where they are not 8, from "Data size calculation" in BigQuery's pricing (strings: length + 2)."""


class GoogleError(Exception):
    """An error of a request or a job, in Google's form."""

    def __init__(self, reason: str, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.status = STATUS_OF_REASON.get(reason, 400) if status is None else status

    @property
    def body(self) -> Resource:
        """The error as the body of an answer."""
        error = {"message": self.message, "domain": "global", "reason": self.reason}
        name = _STATUS_NAMES.get(self.status, "UNKNOWN")
        return {"error": {"code": self.status, "message": self.message, "errors": [error], "status": name}}

    @property
    def proto(self) -> Resource:
        """The error as the `errorResult` of a job."""
        return {"reason": self.reason, "message": self.message}


def canonical_type(name: str) -> str:
    """Return a type as BigQuery answers it, such as INTEGER for INT64; raise `GoogleError` for an unknown one."""
    upper = name.upper()
    canonical = _STANDARD_NAMES.get(upper, upper)
    if canonical not in DUCKDB_TYPES:
        raise GoogleError("invalid", f"Invalid value for type: {name} is not a valid value")
    return canonical


def type_of_duckdb(name: str) -> str:
    """Return the BigQuery type of a DuckDB type."""
    upper = name.upper()
    if upper.startswith("DECIMAL"):
        return "NUMERIC"
    if upper.startswith("TIMESTAMP"):
        return "TIMESTAMP" if "TIME ZONE" in upper else "DATETIME"
    if upper in {"BIGINT", "HUGEINT", "INTEGER", "SMALLINT", "TINYINT", "UBIGINT", "UHUGEINT", "UINTEGER", "USMALLINT"}:
        return "INTEGER"
    plain = {"VARCHAR": "STRING", "DOUBLE": "FLOAT", "FLOAT": "FLOAT", "BLOB": "BYTES", '"NULL"': "INTEGER"}
    return canonical_type(plain.get(upper, upper))


def to_json_value(value: Any, kind: str, *, int64_timestamps: bool = True) -> str | None:
    """Return a value as it is in `rows[].f[].v`: text, or null."""
    if value is None:
        return None
    if kind == "TIMESTAMP":
        return _timestamp_text(value, int64_timestamps)
    return _TO_TEXT.get(kind, str)(value)


def _float_text(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(value)


def _numeric_text(value: Decimal) -> str:
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _timestamp_text(value: dt.datetime, int64: bool) -> str:
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    micros = (value - epoch) // dt.timedelta(microseconds=1)
    return str(micros) if int64 else f"{micros / 1e6:.6E}"


_TO_TEXT: Final[dict[str, Callable[[Any], str]]] = {
    "BOOLEAN": lambda value: "true" if value else "false",
    "FLOAT": _float_text,
    "NUMERIC": _numeric_text,
    "DATE": dt.date.isoformat,
    "DATETIME": dt.datetime.isoformat,
    "TIME": dt.time.isoformat,
    "BYTES": lambda value: base64.standard_b64encode(value).decode(),
}


def from_text(text: Any, kind: str) -> Any:
    """Convert the text of a query parameter or a JSON file to a Python value; raise `ValueError` if it is invalid."""
    return None if text is None else _FROM_TEXT[kind](text)


def _integer(text: Any) -> int:
    if isinstance(text, bool) or (isinstance(text, float) and not text.is_integer()):
        raise ValueError(f"not an integer: {text}")
    return int(text)


def _numeric(text: Any) -> Decimal:
    try:
        value = Decimal(str(text))
    except ArithmeticError as error:
        raise ValueError(f"not a number: {text}") from error
    if not value.is_finite() or abs(value) >= Decimal("1e29"):
        raise ValueError(f"out of range: {text}")
    # 29 digits before the decimal point and 9 after it; BigQuery rounds half away from zero.
    return value.quantize(Decimal("1e-9"), rounding=ROUND_HALF_UP, context=Context(prec=40))


def _boolean(text: Any) -> bool:
    known = {"true": True, "false": False}
    if str(text).lower() not in known:
        raise ValueError(f"not a boolean: {text}")
    return known[str(text).lower()]


def _datetime(text: Any) -> dt.datetime:
    moment = dt.datetime.fromisoformat(str(text))
    if moment.tzinfo is not None:
        raise ValueError(f"a zone in {text}")
    return moment


def _timestamp(text: Any) -> dt.datetime:
    moment = dt.datetime.fromisoformat(str(text).replace(" UTC", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


_FROM_TEXT: Final[dict[str, Callable[[Any], Any]]] = {
    "INTEGER": _integer,
    "FLOAT": float,
    "NUMERIC": _numeric,
    "STRING": str,
    "BYTES": base64.standard_b64decode,
    "DATE": lambda text: dt.date.fromisoformat(str(text)),
    "DATETIME": _datetime,
    "TIMESTAMP": _timestamp,
    "TIME": lambda text: dt.time.fromisoformat(str(text)),
    "BOOLEAN": _boolean,
}

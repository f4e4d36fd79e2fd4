"""The Python types in which assets return rows, and in which inputs receive them.

| type | as an output | as an input |
|---|---|---|
| `pandas.DataFrame` | written at once | all rows, Arrow-backed |
| `pyarrow.Table` | written at once | all rows |
| `pyarrow.RecordBatchReader` | written batch by batch | read batch by batch |
| `pyarrow.dataset.Dataset` | - | read on demand: only the columns and rows that a query needs |
| `polars.DataFrame` | written at once | all rows |
| `polars.LazyFrame` | executed and written batch by batch | read on demand |
| `duckdb.DuckDBPyRelation` | - | read on demand |

Belongs here: the conversion between these types and Arrow. polars is imported only if an asset uses it.
Does not belong here: where the rows are stored.
"""

from __future__ import annotations

import datetime as dt
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from taxi_assets.errors import AssetDefinitionError, AssetValueError
from taxi_assets.storage.duckdb_config import NO_EXTENSIONS
from taxi_assets.storage.pandas_types import to_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

OUTPUT_TYPES = (
    "pandas.DataFrame",
    "pyarrow.Table",
    "pyarrow.RecordBatchReader",
    "polars.DataFrame",
    "polars.LazyFrame",
)
"""The types that an asset can return, for messages."""
INPUT_TYPES = (*OUTPUT_TYPES, "pyarrow.dataset.Dataset", "duckdb.DuckDBPyRelation")
"""The types that an input can be annotated with, for messages."""

_BATCH_ROWS = 65_536
_INFERRED_DECIMAL = (38, 9)
_MAX_NAME_BYTES = 63  # Postgres shortens longer names
_FIX_COLUMN = "Convert the column in the asset."


@dataclass(frozen=True)
class Rows:
    """Rows that an asset has returned. They can be read once."""

    schema: pa.Schema
    """The columns, with types that Parquet files of other tools have too; see `storable_type`."""
    batches: Iterator[pa.RecordBatch]
    """The rows, in batches of this schema."""


def type_name(type_: Any) -> str:
    """Return the name by which users know a type, such as "pandas.DataFrame"."""
    if not isinstance(type_, type):
        return str(type_).removeprefix("typing.")
    package = type_.__module__.split(".")[0].lstrip("_")
    if type_.__module__ == "pyarrow._dataset":
        package = "pyarrow.dataset"
    return type_.__name__ if package == "builtins" else f"{package}.{type_.__name__}"


def is_output_type(type_: Any) -> bool:
    """Return whether an asset may return values of this type."""
    return _known_name(type_, OUTPUT_TYPES) is not None


def is_input_type(type_: Any) -> bool:
    """Return whether `load_dataset` can return this type."""
    return _known_name(type_, INPUT_TYPES) is not None


def _known_name(type_: Any, names: Sequence[str]) -> str | None:
    """Return the name of the type or of one of its base classes, such as pandas.DataFrame for a GeoDataFrame."""
    bases = type_.__mro__ if isinstance(type_, type) else ()
    return next((type_name(base) for base in bases if type_name(base) in names), None)


# --- outputs ----------------------------------------------------------------------------------------------------------


def open_rows(value: object, label: str) -> Rows:
    """Return the rows of a value that an asset has returned.

    Args:
        value: A value of one of `OUTPUT_TYPES`.
        label: Names the asset and partition in errors.

    Raises:
        AssetValueError: The value has another type, has no columns, or has a column that cannot be stored.
    """
    match _known_name(type(value), OUTPUT_TYPES):
        case "pandas.DataFrame":
            table = _from_pandas(value, label)
            schema, batches = table.schema, iter(table.to_batches(_BATCH_ROWS))
        case "pyarrow.Table":
            table = value
            schema, batches = table.schema, iter(table.to_batches(_BATCH_ROWS))  # type: ignore[attr-defined]
        case "pyarrow.RecordBatchReader":
            schema, batches = value.schema, iter(value)  # type: ignore[attr-defined, call-overload]
        case "polars.DataFrame":
            _require_no_objects(value.schema, label)  # type: ignore[attr-defined]
            table = value.to_arrow()  # type: ignore[attr-defined]
            schema, batches = table.schema, iter(table.to_batches(_BATCH_ROWS))
        case "polars.LazyFrame":
            _require_no_objects(value.collect_schema(), label)  # type: ignore[attr-defined]
            schema, batches = _open_lazy_frame(value)
        case _:
            raise AssetValueError(
                f"{label}: the asset returned a value of type {type_name(type(value))}, which this IO manager cannot "
                "store.",
                remedy=f"Return one of: {', '.join(OUTPUT_TYPES)}.",
            )
    storable = storable_schema(schema, label)
    return Rows(storable, _cast_batches(batches, storable, label))


def _from_pandas(frame: Any, label: str) -> pa.Table:
    _require_values_of_one_kind(frame, label)
    try:
        table = pa.Table.from_pandas(_with_index_columns(frame, label), preserve_index=False)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise AssetValueError(
            f"{label}: the frame cannot be stored: {_one_line(error)}.",
            remedy="Give each column a name of its own, and values of one type that the type can hold.",
        ) from error
    # pyarrow infers precision and scale of decimal objects from their values. The next partition may need more. Values
    # that do not fit keep the inferred type.
    for place, field in enumerate(table.schema):
        is_inferred = pa.types.is_decimal(field.type) and pd.api.types.is_object_dtype(frame.dtypes.get(field.name))
        if is_inferred and field.type.scale <= _INFERRED_DECIMAL[1]:
            with suppress(pa.ArrowInvalid):
                column = table.column(place).cast(pa.decimal128(*_INFERRED_DECIMAL))
                table = table.set_column(place, field.name, column)
    return table


def _require_values_of_one_kind(frame: Any, label: str) -> None:
    """Raise an error for a column of Python objects of which pyarrow would change some: dates and times, for example.

    pyarrow takes the type of such a column from the first values.
    """
    for name, type_ in zip(frame.columns, frame.dtypes, strict=True):
        if not pd.api.types.is_object_dtype(type_) or list(frame.columns).count(name) > 1:
            continue
        kinds = sorted(filter(None, {_kind(value) for value in frame[name]}))
        if len(kinds) > 1:
            raise AssetValueError(
                f"{label}: the column {name} has values of several types: {', '.join(kinds)}.",
                remedy=_FIX_COLUMN,
            )


def _kind(value: object) -> str | None:
    """Return the kind of a value that must not be mixed with others; None for other values."""
    if value is pd.NaT:
        return None
    if isinstance(value, dt.datetime):
        return "times without a zone" if value.tzinfo is None else "times with a zone"
    if isinstance(value, dt.date):
        return "dates"
    return "texts" if isinstance(value, str) else "bytes" if isinstance(value, bytes) else None


def _with_index_columns(frame: Any, label: str) -> Any:
    """Return the frame with the named levels of its index as columns, so that a group key is not lost.

    Integers without a name are row numbers, which filters, sorting and concatenation leave in any order. They are not
    stored.
    """
    index = frame.index
    if any(name is not None for name in index.names):
        return frame.reset_index()
    if isinstance(index, pd.MultiIndex) or not (pd.api.types.is_integer_dtype(index.dtype) or len(index) == 0):
        raise AssetValueError(
            f"{label}: the frame has an index without a name, of type {index.dtype}. It would be lost, because only "
            "columns are stored.",
            remedy="Call reset_index() to store the index as a column, or reset_index(drop=True) to drop it.",
        )
    return frame


def _open_lazy_frame(frame: Any) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    batches = frame.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True)

    def arrow_batches() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield from batch.to_arrow().to_batches()

    return frame.collect_schema().to_frame().to_arrow().schema, arrow_batches()


def _require_no_objects(schema: Any, label: str) -> None:
    """Raise an error for a polars column of Python objects, of which Arrow would get the memory addresses."""
    objects = [name for name, type_ in schema.items() if str(type_) in {"Object", "Int128", "UInt128"}]
    if objects:
        raise AssetValueError(
            f"{label}: the column {objects[0]} has the type {schema[objects[0]]}, which cannot be stored.",
            remedy=_FIX_COLUMN,
        )


def storable_schema(schema: pa.Schema, label: str) -> pa.Schema:
    """Return the schema with storable types, without the metadata of pandas.

    Raises:
        AssetValueError: There is no column; a name cannot be stored, or differs from another only in case, which
            databases do not distinguish; or a type is not known to other tools.
    """
    if not schema.names:
        raise AssetValueError(
            f"{label}: the asset returned rows without columns.",
            remedy="Return a table with columns, even if it has no rows.",
        )
    seen: dict[str, str] = {}
    for name in schema.names:
        if not name or "\0" in name or len(name.encode()) > _MAX_NAME_BYTES:
            raise AssetValueError(
                f"{label}: {name[:80]!r} cannot be the name of a column: a name has 1 to {_MAX_NAME_BYTES} bytes.",
                remedy="Rename the column.",
            )
        if name.lower() in seen:
            raise AssetValueError(
                f"{label}: the columns {seen[name.lower()]} and {name} have the same name for databases, which ignore "
                "case.",
                remedy="Rename one of them.",
            )
        seen[name.lower()] = name
    unknown = [field for field in schema if isinstance(field.type, pa.BaseExtensionType) or _has_negative_scale(field)]
    if unknown:
        raise AssetValueError(
            f"{label}: the column {unknown[0].name} has the type {unknown[0].type}, which other tools do not know.",
            remedy=_FIX_COLUMN,
        )
    return pa.schema([pa.field(field.name, storable_type(field.type)) for field in schema])


def _has_negative_scale(field: pa.Field) -> bool:
    return bool(pa.types.is_decimal(field.type)) and field.type.scale < 0


_STORABLE_TYPES: Sequence[tuple[Callable[[Any], bool], Callable[[Any], Any]]] = (
    (pa.types.is_dictionary, lambda type_: storable_type(type_.value_type)),
    (pa.types.is_large_string, lambda _: pa.string()),
    (pa.types.is_string_view, lambda _: pa.string()),
    (pa.types.is_large_binary, lambda _: pa.binary()),
    (pa.types.is_binary_view, lambda _: pa.binary()),
    (pa.types.is_large_list, lambda type_: pa.list_(storable_type(type_.value_type))),
    (pa.types.is_list, lambda type_: pa.list_(storable_type(type_.value_type))),
    (pa.types.is_timestamp, lambda type_: pa.timestamp("us", type_.tz)),
    (pa.types.is_date, lambda _: pa.date32()),
    (pa.types.is_float16, lambda _: pa.float32()),
    (pa.types.is_decimal32, lambda type_: pa.decimal128(type_.precision, type_.scale)),
    (pa.types.is_decimal64, lambda type_: pa.decimal128(type_.precision, type_.scale)),
)


def storable_type(type_: pa.DataType) -> pa.DataType:
    """Return the type in which a column is stored.

    Texts, lists and decimals get the ordinary Arrow type, categories the type of their values, and times
    microseconds. Other types are unchanged.
    """
    return next((convert(type_) for matches, convert in _STORABLE_TYPES if matches(type_)), type_)


def _cast_batches(batches: Iterable[Any], schema: pa.Schema, label: str) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield cast_batch(batch, schema, label)


def cast_batch(batch: Any, schema: pa.Schema, label: str) -> pa.RecordBatch:
    """Return the batch with the types of a schema, which has the same columns in the same order.

    Raises:
        AssetValueError: A value would change, such as a time with nanoseconds.
    """
    if batch.schema.names != schema.names:
        raise AssetValueError(
            f"{label}: a batch has the columns {', '.join(batch.schema.names)}; the schema of the reader has "
            f"{', '.join(schema.names)}.",
            remedy="Give all batches the columns of the schema.",
        )
    columns = []
    for column, field in zip(batch.columns, schema, strict=True):
        try:
            columns.append(column if column.type == field.type else column.cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise AssetValueError(
                f"{label}: the column {field.name} ({column.type}) cannot be stored as {field.type} without a change "
                f"of its values: {_one_line(error)}.",
                remedy=_FIX_COLUMN,
            ) from error
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _one_line(error: Exception) -> str:
    # pyarrow's errors about a column have two arguments: the cause, and the column.
    return ", ".join(" ".join(str(part).split()).rstrip(".") for part in error.args)


# --- inputs -----------------------------------------------------------------------------------------------------------


def load_dataset(dataset: Any, type_: Any) -> Any:
    """Return the rows of a dataset in the type that an input asks for.

    Args:
        dataset: A `pyarrow.dataset.Dataset`.
        type_: One of `INPUT_TYPES`. For a lazy type, no rows are read yet.
    """
    return _LOADERS[_known_name(type_, INPUT_TYPES) or "pandas.DataFrame"](dataset)


def _load_polars(dataset: Any) -> Any:
    import polars as pl  # noqa: PLC0415  (optional)

    return pl.from_arrow(dataset.to_table())


def _load_lazy_polars(dataset: Any) -> Any:
    import polars as pl  # noqa: PLC0415  (optional)

    # polars filters the rows itself: for Arrow, NaN is not greater than other numbers.
    return pl.scan_pyarrow_dataset(dataset, allow_pyarrow_filter=False)


def _load_duckdb(dataset: Any) -> Any:
    import duckdb  # noqa: PLC0415  (a tenth of a second)

    if not dataset.schema.names:
        raise AssetDefinitionError(
            "There are no rows and no columns yet, which a duckdb.DuckDBPyRelation cannot express.",
            remedy="Annotate the input with another type.",
        )
    return duckdb.connect(config={**NO_EXTENSIONS}).from_arrow(dataset)


_LOADERS: Mapping[str, Callable[[Any], Any]] = {
    "pandas.DataFrame": lambda dataset: to_frame(dataset.to_table()),
    "pyarrow.Table": lambda dataset: dataset.to_table(),
    "pyarrow.RecordBatchReader": lambda dataset: dataset.scanner(batch_size=_BATCH_ROWS).to_reader(),
    "pyarrow.dataset.Dataset": lambda dataset: dataset,
    "polars.DataFrame": _load_polars,
    "polars.LazyFrame": _load_lazy_polars,
    "duckdb.DuckDBPyRelation": _load_duckdb,
}

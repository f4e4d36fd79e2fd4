"""A `pyarrow.dataset.Dataset` whose rows come from queries, which run when rows are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class QueryDataset(pyarrow.dataset.Dataset):  # type: ignore[misc]  # pyarrow has no types
    """Rows of a warehouse table. Only the columns that a reader needs are queried; filters apply as the rows arrive.

    pandas, polars and DuckDB read it as they read any dataset: through `scanner` and `to_table`. Methods of pyarrow
    that need files, such as `sort_by` and `join`, are not available. Call them on `to_table()` instead.

    Args:
        schema: The columns. Batches that a query returns are cast to it; a column that is missing in them is null.
        queries: One function per partition, in order. It takes the names of columns and the maximum number of rows, or
            None, and returns a `pyarrow.RecordBatchReader` with those of the columns that the table has.
    """

    def __init__(
        self, schema: pa.Schema, queries: Sequence[Callable[[Sequence[str], int | None], pa.RecordBatchReader]]
    ) -> None:
        self._columns = schema
        self._queries = queries

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return self._columns

    @property
    def partition_expression(self) -> pc.Expression:
        """An expression that is true for all rows: nothing is known of them before a query."""
        return pc.scalar(True)

    def scanner(self, columns: Any = None, filter: Any = None, **options: Any) -> Any:  # noqa: A002  (as in pyarrow)
        """Return a scanner that queries the needed columns when it is read, once.

        Args:
            columns: Names of columns, or expressions by name; by default all columns.
            filter: Only rows for which this expression is true.
            **options: Options of `pyarrow.dataset.Scanner`.
        """
        needed = self._needed_columns(columns, filter)
        batches = pa.RecordBatchReader.from_batches(needed, self._read(needed, None))
        known = {name: options[name] for name in ("batch_size", "memory_pool", "use_threads") if name in options}
        return pyarrow.dataset.Scanner.from_batches(batches, columns=columns, filter=filter, **known)

    def head(self, num_rows: int, columns: Any = None, filter: Any = None, **options: Any) -> pa.Table:  # noqa: A002
        """Return the first rows. Without a filter, the queries return no more than these."""
        if filter is not None:
            return self.scanner(columns=columns, filter=filter, **options).head(num_rows)
        needed = self._needed_columns(columns, None)
        rows = pa.Table.from_batches(self._read(needed, num_rows), needed).slice(0, num_rows)
        return pyarrow.dataset.dataset(rows).to_table(columns=columns)

    def _needed_columns(self, columns: Any, condition: Any) -> pa.Schema:
        # An expression does not list the columns that it refers to, but binding it fails without one of them.
        names = list(columns) if columns is not None and not isinstance(columns, dict) else None
        if names is None or not set(names) <= set(self._columns.names):
            return self._columns
        if condition is not None:
            text = str(condition)
            names += [name for name in self._columns.names if name in text and name not in names]
        # Rows without columns cannot be counted, so at least one column is read.
        return pa.schema([self._columns.field(name) for name in names or self._columns.names[:1]])

    def _read(self, schema: pa.Schema, rows: int | None) -> Iterator[pa.RecordBatch]:
        for query in self._queries:
            if rows == 0:
                return
            for batch in query(schema.names, rows):
                rows = None if rows is None else max(0, rows - batch.num_rows)
                yield in_schema(batch, schema)

    def _unavailable(self, *_args: Any, **_options: Any) -> NoReturn:
        raise NotImplementedError("A table of the warehouse has no files. Call to_table() first.")

    get_fragments = filter = join = join_asof = sort_by = replace_schema = __reduce__ = _unavailable


def in_schema(rows: Any, schema: pa.Schema) -> Any:
    """Cast the columns of a batch or table to a schema, in its order; columns that it does not have are null."""
    columns = [
        rows.column(field.name).cast(field.type)
        if field.name in rows.schema.names
        else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return type(rows).from_arrays(columns, schema=schema)

"""Find the trips that differ between two revisions, among trips that do not fit in memory.

Parts of a month are that large if very many trips have nearly the same pickup time. DuckDB compares them, and uses the
disk where its memory is not enough. The result is that of `row_matching.find_differences`, which is faster.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from taxi_assets.storage.revision_comparison.row_matching import Differences
from taxi_assets.storage.revision_comparison.row_values import Values
from taxi_assets.storage.warehouse.duckdb.tables import quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import duckdb

    from taxi_assets.storage.revision_comparison.month_parts import Part

_BATCH_ROWS = 65_536


def find_differences_on_disk(
    connection: duckdb.DuckDBPyConnection, part: Part, compared: Sequence[str], key: Sequence[str]
) -> Iterator[Differences]:
    """Find the trips of a part that differ. Equal rows cancel each other out, one by one.

    Args:
        connection: A connection with two temporary tables, `trips` and `remaining`, which are replaced.
        part: The trips.
        compared: The columns to compare.
        key: Those columns that the rows of a changed trip have in common.

    Returns:
        The differences, sorted by pickup time, in several batches.
    """
    _create_trips(connection, part)
    names, key_names = ", ".join(map(quote, compared)), ", ".join(map(quote, key))
    # Equal rows cancel each other out. Each copy of a row that remains gets its place among the rows of its trip.
    surplus = f"""SELECT {names}, sum(CASE WHEN _is_new THEN 1 ELSE -1 END)::BIGINT AS _surplus,
        min(source_row) FILTER (NOT _is_new) AS _old_row, min(source_row) FILTER (_is_new) AS _new_row
        FROM trips GROUP BY {names} HAVING _surplus <> 0"""
    copies = f"""SELECT {names}, _surplus > 0 AS _is_new, unnest(range(abs(_surplus))) AS _copy,
        CASE WHEN _surplus > 0 THEN _new_row ELSE _old_row END AS source_row FROM ({surplus})"""
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE remaining AS SELECT * EXCLUDE (_copy),
        row_number() OVER (PARTITION BY {key_names}, _is_new ORDER BY source_row, _copy) AS _place FROM ({copies})"""
    )
    rows = [*compared, "source_row"]
    sides = ", ".join(f"{side}.{quote(name)} AS {quote(f'{side}_{name}')}" for side in ("old", "new") for name in rows)
    same = " AND ".join(f"old.{name} IS NOT DISTINCT FROM new.{name}" for name in (*map(quote, key), "_place"))
    pairs = f"""SELECT * FROM (SELECT {sides}, count(*) AS _rows FROM (FROM remaining WHERE NOT _is_new) old
        FULL JOIN (FROM remaining WHERE _is_new) new ON {same} GROUP BY ALL)
        ORDER BY coalesce(new_pickup_datetime, old_pickup_datetime), coalesce(new_source_row, old_source_row),
        old_source_row NULLS FIRST, new_source_row"""
    for batch in connection.sql(pairs).to_arrow_reader(_BATCH_ROWS):
        yield _differences(batch, rows)


def _create_trips(connection: duckdb.DuckDBPyConnection, part: Part) -> None:
    """Create the table `trips` with the trips of both revisions."""
    statement = "CREATE OR REPLACE TEMP TABLE trips AS"
    for path, is_new in ((part.old, False), (part.new, True)):
        batches = part.batches(path)
        first = next(batches, None)
        if first is None:
            continue
        types = [(field.name, pa.string() if pa.types.is_string(field.type) else pa.int64()) for field in first.schema]
        schema = pa.schema(types)
        reader = pa.RecordBatchReader.from_batches(schema, (each.cast(schema) for each in chain([first], batches)))
        connection.from_arrow(reader).query("rows", f"{statement} SELECT *, {is_new} AS _is_new FROM rows")
        statement = "INSERT INTO trips"


def _differences(pairs: pa.RecordBatch, names: Sequence[str]) -> Differences:
    columns = {name: Values.of([pairs[f"old_{name}"], pairs[f"new_{name}"]]) for name in names}
    count = pairs.num_rows
    old, new = np.arange(count), np.arange(count, 2 * count)
    is_absent = columns["source_row"].null_mask()
    return Differences(
        columns,
        np.where(is_absent[:count], -1, old),
        np.where(is_absent[count:], -1, new),
        pairs["_rows"].to_numpy(),
    )

"""Find the trips that differ between two revisions, among trips that fit in memory.

Belongs here: cancelling equal rows, and pairing the others. Does not belong here: the form of the result
(`difference_rows.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from taxi_assets.storage.revision_comparison.row_values import Array, TripRows, Values

if TYPE_CHECKING:
    from collections.abc import Mapping

HashRows = Callable[[Sequence[Values]], Array]
"""A function that returns an unsigned integer per row, the same one for equal rows."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)
_CACHED_ROWS = 8192


@dataclass(frozen=True)
class Differences:
    """The trips that differ, sorted by pickup time. Each is an added trip, a removed trip, or a changed pair.

    Attributes:
        columns: The values of rows of both revisions, by column.
        old: The index of the older row, one for each difference; -1 if there is none.
        new: The index of the newer row; -1 if there is none.
        row_count: How many published rows differ in this way.
    """

    columns: Mapping[str, Values]
    old: Array
    new: Array
    row_count: Array

    def __len__(self) -> int:
        """Return the number of differences."""
        return len(self.old)


def hash_rows(columns: Sequence[Values]) -> Array:
    """Return a hash of each row, of 64 bits."""
    rows = len(columns[0].numbers)
    hashes = np.zeros(rows, np.uint64)
    # Few rows at a time, so that they stay in the processor's cache.
    for start in range(0, rows, _CACHED_ROWS):
        part = slice(start, start + _CACHED_ROWS)
        mixed = hashes[part]
        for column in columns:
            mixed ^= column.numbers[part].astype(np.int64, copy=False).view(np.uint64)
            if column.nulls is not None:
                mixed ^= column.nulls[part].astype(np.uint64) << np.uint64(63)
            mixed *= _MULTIPLIER
            mixed ^= mixed >> _SHIFT
    return hashes


def number_equal_rows(columns: Sequence[Values], hash_rows: HashRows = hash_rows) -> Array:
    """Return a number per row, from 0 without gaps. Two rows have the same number if and only if they are equal.

    Rows with the same hash are compared by value. If different rows have the same hash, no hash is used.
    """
    hashes = hash_rows(columns)
    order = np.argsort(hashes)
    hashes = hashes[order]
    is_repeated = hashes[1:] == hashes[:-1]
    places = np.flatnonzero(is_repeated)
    rows, following = order[places], order[places + 1]
    if any(column.differ_between(rows, following).any() for column in columns):
        return _number_without_hashes(columns)
    numbers = np.zeros(len(order), np.int64)
    numbers[order[1:]] = np.cumsum(~is_repeated)
    return numbers


def _number_without_hashes(columns: Sequence[Values]) -> Array:
    lists = [values.tolist() for column in columns for values in (column.numbers, column.null_mask())]
    numbers: dict[tuple[int, ...], int] = {}
    return np.array([numbers.setdefault(row, len(numbers)) for row in zip(*lists, strict=True)], np.int64)


def find_differences(
    rows: TripRows, compared: Sequence[str], key: Sequence[str], hash_rows: HashRows = hash_rows
) -> Differences:
    """Find the trips that differ. Equal rows cancel each other out, the last copies of a row first.

    Args:
        rows: The trips.
        compared: The columns to compare.
        key: Those columns that the rows of a changed trip have in common.
        hash_rows: Makes the comparison fast. Any function gives the same result.
    """
    keys = number_equal_rows([rows.columns[name] for name in key], hash_rows)
    sides = keys[: rows.old_rows], keys[rows.old_rows :]
    counts = [_counts(side, keys) for side in sides]
    is_unique = np.maximum(*counts) == 1
    old, new = _pair_unique(rows, sides, is_unique, [name for name in compared if name not in key])
    row_count = np.ones(len(old), np.int64)
    repeated = np.flatnonzero(~is_unique[keys])
    if len(repeated):
        columns = [rows.columns[name].take(repeated) for name in compared]
        groups = number_equal_rows(columns, hash_rows)
        old_repeated = int(np.searchsorted(repeated, rows.old_rows))
        *pairs, counts_of_pairs = _pair_repeated(keys[repeated], groups, old_repeated)
        old, new = (
            np.concatenate([side, np.append(repeated, -1)[more]]) for side, more in zip((old, new), pairs, strict=True)
        )
        row_count = np.concatenate([row_count, counts_of_pairs])
    return _sorted(rows, old, new, row_count)


def _counts(numbers: Array, all_numbers: Array) -> Array:
    return np.bincount(numbers, minlength=int(all_numbers.max(initial=0)) + 1)


def _pair_unique(
    rows: TripRows, sides: Sequence[Array], is_unique: Array, values: Sequence[str]
) -> tuple[Array, Array]:
    """Pair the rows whose key each revision has at most once, and return those that differ.

    Args:
        rows: The trips.
        sides: The number of the key, one per row of the older revision, and one per row of the newer one.
        is_unique: Whether each revision has a key at most once.
        values: The columns that may differ.
    """
    old_keys, new_keys = sides
    row_of_key = np.full(len(is_unique), -1)
    row_of_key[old_keys] = np.arange(len(old_keys))
    new = np.flatnonzero(is_unique[new_keys])
    old = row_of_key[new_keys[new]]
    new += rows.old_rows
    paired = np.flatnonzero(old >= 0)
    differs = old < 0
    for name in values:
        differs[paired] |= rows.columns[name].differ_between(old[paired], new[paired])
    is_removed = is_unique.copy()
    is_removed[new_keys] = False
    removed = np.flatnonzero(is_removed[old_keys])
    return np.append(old[differs], removed), np.append(new[differs], np.full(len(removed), -1))


def _pair_repeated(keys: Array, groups: Array, old_rows: int) -> tuple[Array, Array, Array]:
    """Pair rows whose keys are repeated, and return the pairs that differ, each once, and how often each occurs.

    Args:
        keys: The number of the key of each row: first the older rows, then the newer ones.
        groups: The number of the group of equal rows.
        old_rows: The number of older rows.
    """
    surplus = _counts(groups[:old_rows], groups) - _counts(groups[old_rows:], groups)
    old, old_first = _remaining_rows(groups[:old_rows], surplus)
    new, new_first = _remaining_rows(groups[old_rows:], -surplus)
    sides = keys[:old_rows][old], keys[old_rows:][new]
    counts = [_counts(side, keys) for side in sides]
    places = np.maximum(*counts)
    starts = np.cumsum(places) - places
    # The first copy of a row represents its copies.
    pairs = np.full((2, places.sum()), -1)
    for number, first in enumerate((old_first, new_first + old_rows)):
        pairs[number, starts[sides[number]] + _count_earlier(sides[number], counts[number])] = first
    _, kept, row_count = np.unique((pairs[0] + 1) * (len(keys) + 1) + pairs[1], return_index=True, return_counts=True)
    return pairs[0, kept], pairs[1, kept], row_count


def _remaining_rows(groups: Array, surplus: Array) -> tuple[Array, Array]:
    """Return the rows of one revision that remain, and for each of them the first equal row.

    They are in the order of the file, but copies follow the first copy.

    Args:
        groups: The number of the group of equal rows, one per row of the revision.
        surplus: The number of copies that remain, one per group; none if it is negative.
    """
    earlier = _count_earlier(groups, np.bincount(groups, minlength=len(surplus)))
    rows = np.flatnonzero(earlier < surplus[groups])
    first_of_group = np.zeros(len(surplus), np.int64)
    is_first = earlier[rows] == 0
    first_of_group[groups[rows[is_first]]] = rows[is_first]
    first = first_of_group[groups[rows]]
    order = np.lexsort((earlier[rows], first))
    return rows[order], first[order]


def _count_earlier(numbers: Array, counts: Array) -> Array:
    """Return how many earlier rows have the same number, for each row.

    Args:
        numbers: The number of each row.
        counts: How many rows have each number.
    """
    earlier = np.zeros(len(numbers), np.int64)
    repeated = np.flatnonzero(counts[numbers] > 1)
    order = repeated[np.argsort(numbers[repeated], kind="stable")]
    starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    earlier[order] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return earlier


def _sorted(rows: TripRows, old: Array, new: Array, row_count: Array) -> Differences:
    """Sort by pickup time, then by row number of the newer file (of the older one for removed rows)."""
    shown = np.where(new < 0, old, new)
    source_rows = rows.columns["source_row"].numbers[shown].astype(np.int64)
    kinds = np.where(old < 0, 0, np.where(new < 0, 2, 1))
    order = np.argsort(3 * source_rows + kinds, kind="stable")
    order = order[np.argsort(rows.columns["pickup_datetime"].numbers[shown[order]], kind="stable")]
    return Differences(rows.columns, old[order], new[order], row_count[order])

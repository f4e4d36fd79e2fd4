"""Split one batch of published rows into clean trips and quarantined rows.

Belongs here: the evaluation of the rules, and the decision of which rows are rejected. Does not belong here: values and
derived columns (`parse_batch.py`), and the form of quarantined rows (`quarantine.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.tlc.cleaning.parse_batch import DERIVED_FROM, ParsedBatch, parse_batch
from taxi_assets.tlc.cleaning.quarantine import build_quarantine
from taxi_assets.tlc.rules import NOT_UTF8, UNREADABLE_VALUE
from taxi_assets.tlc.values.working_types import to_canonical

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.readers.base_reader import RawBatch
    from taxi_assets.tlc.rules import Rule
    from taxi_assets.tlc.schema import Service
    from taxi_assets.tlc.values.time_forms import TimeForm

    Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class SplitBatch:
    """The two halves of a batch, each in file order.

    Attributes:
        clean: The clean trips, as a record batch in the service's `working_schema`.
        quarantine: The quarantined rows, as a record batch in `QUARANTINE_SCHEMA`.
        parsed: All rows in the service's columns.
    """

    clean: Any
    quarantine: Any
    parsed: ParsedBatch


def split_batch(
    raw: RawBatch,
    service: Service,
    month: Month,
    rules: Sequence[Rule],
    unreadable_forms: frozenset[TimeForm] = frozenset(),
) -> SplitBatch:
    """Split one batch of published rows into clean trips and quarantined rows.

    Every input row appears in exactly one of the two outputs, in file order.

    Args:
        raw: Rows as published, one Arrow array per column in the file.
        service: Defines the canonical columns and their types.
        month: The partition; rules compare pickup times with it.
        rules: The rules to apply. A null result counts as passed.
        unreadable_forms: Forms of times that cannot be read.

    Returns:
        The clean trips in `service.working_schema`, and the quarantined rows in `QUARANTINE_SCHEMA`.
    """
    parsed = parse_batch(raw, service, month, unreadable_forms)
    batch, unreadable = parsed.batch, parsed.unreadable
    violations = evaluate_rules(parsed, month, rules)
    reasons = _collect_reasons(raw, violations, unreadable)
    rejected = np.logical_or.reduce(list(reasons.values())) if reasons else np.zeros(batch.num_rows, bool)
    quarantine = build_quarantine(raw, batch, month, reasons, unreadable, rejected=rejected)
    return SplitBatch(_keep_rows(batch, ~rejected) if rejected.any() else batch, quarantine, parsed)


class RuleInput:
    """The batch that rules receive: like a record batch, but with columns in their canonical types.

    A column is converted when a rule first reads it.

    Attributes:
        columns_read: The names of the columns that were read since the set was cleared.
    """

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self._columns: dict[str, Any] = {}
        self.columns_read: set[str] = set()
        self.num_rows: int = batch.num_rows

    def column(self, name: str) -> Any:
        """Return a canonical column as an Arrow array.

        Raises:
            KeyError: The service has no column of this name.
        """
        self.columns_read.add(name)
        if name not in self._columns:
            self._columns[name] = to_canonical(self._batch.column(name))
        return self._columns[name]

    __getitem__ = column


def evaluate_rules(parsed: ParsedBatch, month: Month, rules: Sequence[Rule]) -> Mapping[str, Any]:
    """Evaluate each rule on a batch of parsed rows.

    Args:
        parsed: Rows in the service's columns, in working types.
        month: The partition.
        rules: The rules to apply.

    Returns:
        A mapping from rule name to a boolean mask with one value per row, in the order of the rules. It is true where
        the row violates the rule, and all values that the rule reads can be read. Nulls are replaced with false.
    """
    rule_input = RuleInput(parsed.batch)
    violations = {}
    for rule in rules:
        rule_input.columns_read.clear()
        violated = pc.fill_null(rule.is_violated(rule_input, month), pa.scalar(False))
        # A value that cannot be read is null in the batch, but it is not missing.
        sources = {source for name in rule_input.columns_read for source in DERIVED_FROM.get(name, (name,))}
        for name in sources & parsed.unreadable.keys():
            violated = pc.and_not(violated, pa.array(parsed.unreadable[name]))
        violations[rule.name] = violated
    return violations


def _collect_reasons(raw: RawBatch, violations: Mapping[str, Any], unreadable: Mapping[str, Mask]) -> dict[str, Mask]:
    """Return the reasons that apply to at least one row, violated rules before reading errors.

    Rows with a wrong field count never reach `batch`; see `RawBatch.malformed_rows`, which `build_quarantine` adds.

    Args:
        raw: The published rows of the batch.
        violations: A mapping from rule name to a boolean mask, as `evaluate_rules` returns it.
        unreadable: A mapping from column name to a boolean mask, true where the value cannot be read. It has only
            columns with such values.

    Returns:
        A mapping from reason to a boolean mask with one value per row.
    """
    reasons = {name: np.asarray(mask) for name, mask in violations.items() if mask.true_count}
    if unreadable:
        reasons[UNREADABLE_VALUE] = np.logical_or.reduce(list(unreadable.values()))
    if raw.not_utf8:
        reasons[NOT_UTF8] = np.isin(raw.source_rows, list(raw.not_utf8))
    return reasons


def _keep_rows(batch: Any, kept: Mask) -> Any:
    mask, rows = pa.array(kept), int(np.count_nonzero(kept))
    # All-null columns skip the filter: several published layouts lack many columns.
    columns = [
        pa.nulls(rows, column.type) if column.null_count == len(column) else column.filter(mask)
        for column in batch.columns
    ]
    return pa.record_batch(columns, schema=batch.schema)

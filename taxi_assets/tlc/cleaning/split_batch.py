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

from taxi_assets.tlc.cleaning.parse_batch import parse_batch
from taxi_assets.tlc.cleaning.quarantine import build_quarantine
from taxi_assets.tlc.values.working_types import to_canonical
from taxi_assets.tlc.rules import NOT_UTF8, UNREADABLE_VALUE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.readers.base_reader import RawBatch
    from taxi_assets.tlc.rules import Rule
    from taxi_assets.tlc.schema import Service

    Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class SplitBatch:
    """The two halves of a batch, each in file order.

    Attributes:
        clean: The clean trips, as a record batch in the service's `working_schema`.
        quarantine: The quarantined rows, as a record batch in `QUARANTINE_SCHEMA`.
    """

    clean: Any
    quarantine: Any


def split_batch(raw: RawBatch, service: Service, month: Month, rules: Sequence[Rule]) -> SplitBatch:
    """Split one batch of published rows into clean trips and quarantined rows.

    Every input row appears in exactly one of the two outputs, in file order.

    Args:
        raw: Rows as published, one Arrow array per column in the file.
        service: Defines the canonical columns and their types.
        month: The partition; rules compare pickup times with it.
        rules: The rules to apply. A null result counts as passed.

    Returns:
        The clean trips in `service.working_schema`, and the quarantined rows in `QUARANTINE_SCHEMA`.
    """
    batch, unreadable = parse_batch(raw, service, month)
    violations = evaluate_rules(batch, month, rules)
    reasons = _collect_reasons(raw, violations, unreadable)
    rejected = np.logical_or.reduce(list(reasons.values())) if reasons else np.zeros(batch.num_rows, bool)
    quarantine = build_quarantine(raw, batch, month, reasons, unreadable, rejected=rejected)
    return SplitBatch(_keep_rows(batch, ~rejected) if rejected.any() else batch, quarantine)


class RuleInput:
    """The batch that rules receive: like a record batch, but with columns in their canonical types.

    A column is converted when a rule first reads it.
    """

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self._columns: dict[str, Any] = {}
        self.num_rows: int = batch.num_rows

    def column(self, name: str) -> Any:
        """Return a canonical column as an Arrow array.

        Raises:
            KeyError: The service has no column of this name.
        """
        if name not in self._columns:
            self._columns[name] = to_canonical(self._batch.column(name))
        return self._columns[name]

    __getitem__ = column


def evaluate_rules(batch: Any, month: Month, rules: Sequence[Rule]) -> Mapping[str, Any]:
    """Evaluate each rule on a batch of parsed rows.

    Args:
        batch: Rows in the service's columns, in working types.
        month: The partition.
        rules: The rules to apply.

    Returns:
        A mapping from rule name to a boolean mask with one value per row, in the order of the rules. It is true where
        the row violates the rule. Nulls are replaced with false.
    """
    rule_input = RuleInput(batch)
    return {rule.name: pc.fill_null(rule.is_violated(rule_input, month), pa.scalar(False)) for rule in rules}


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

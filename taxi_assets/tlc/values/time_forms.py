"""The forms in which times are published, and what each says about the time zone."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    Integers = np.ndarray[Any, np.dtype[np.int64]]
    Mask = np.ndarray[Any, np.dtype[np.bool_]]
    Forms = np.ndarray[Any, np.dtype[np.int8]]


class TimeForm(IntEnum):
    """How a time was published. Arrays of forms have the type int8."""

    LOCAL = 0
    """Without a time zone, year first. Null values and values that cannot be read count as this form too."""
    MONTH_FIRST = 1
    NEW_YORK_ZONE = 2
    UTC = 3
    EPOCH_SECONDS = 4
    EPOCH_MILLISECONDS = 5
    EPOCH_MICROSECONDS = 6
    EPOCH_NANOSECONDS = 7


_EPOCH_UNITS = {
    TimeForm.EPOCH_SECONDS: "seconds",
    TimeForm.EPOCH_MILLISECONDS: "milliseconds",
    TimeForm.EPOCH_MICROSECONDS: "microseconds",
    TimeForm.EPOCH_NANOSECONDS: "nanoseconds",
}

AMBIGUOUS_FORMS: Mapping[TimeForm, str] = {
    TimeForm.MONTH_FIRST: "written like 3/1/2021",
    TimeForm.UTC: "marked as UTC",
    **{form: f"numbers of {unit} since 1970" for form, unit in _EPOCH_UNITS.items()},
}
"""The forms that have two meanings, with a phrase that follows "the times are".

Tools also write the forms of UTC for local times. Outside of the US, the day comes first.
"""

INTERPRETATIONS: Mapping[TimeForm, str] = {
    TimeForm.MONTH_FIRST: "Times were written with the month first, such as 03/01/2021 04:36:54 AM.",
    TimeForm.NEW_YORK_ZONE: "Times had the time zone or the UTC offset of New York, and are New York local times.",
    TimeForm.UTC: "Times were marked as UTC and are New York local times.",
    **{
        form: f"Times were numbers of {unit} since 1970 and are New York local times."
        for form, unit in _EPOCH_UNITS.items()
    },
}
"""How cleaning has read each form, as a sentence for the report."""

# Other numbers are not read as times. In this range, the magnitude determines the unit.
_FIRST_EPOCH_SECOND, _LAST_EPOCH_SECOND = 631_152_000, 4_102_444_800  # 1990 to 2100
_PER_SECOND = {
    TimeForm.EPOCH_SECONDS: 1,
    TimeForm.EPOCH_MILLISECONDS: 10**3,
    TimeForm.EPOCH_MICROSECONDS: 10**6,
    TimeForm.EPOCH_NANOSECONDS: 10**9,
}


def read_epochs(numbers: Integers) -> tuple[Integers, Forms]:
    """Read numbers of seconds, milliseconds, microseconds or nanoseconds since 1970, by their magnitude.

    Args:
        numbers: The published numbers.

    Returns:
        Microseconds since 1970, with nanoseconds truncated. Then the form of each number, `TimeForm.LOCAL` for a number
        that is not a time from 1990 to 2100 in any unit.
    """
    microseconds = np.zeros(len(numbers), np.int64)
    forms = np.zeros(len(numbers), np.int8)
    for form, per_second in _PER_SECOND.items():
        inside = (numbers >= _FIRST_EPOCH_SECOND * per_second) & (numbers < _LAST_EPOCH_SECOND * per_second)
        found = numbers[inside]
        microseconds[inside] = found * (10**6 // per_second) if per_second <= 10**6 else found // (per_second // 10**6)
        forms[inside] = form
    return microseconds, forms

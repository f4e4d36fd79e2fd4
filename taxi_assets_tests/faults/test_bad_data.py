"""Whatever a file holds: one clear error, or every row on one side with the values that the file says.

Real files are spoilt by hypothesis, seeded. Invented files are in `unit/tlc/test_clean_properties.py`, what people
really got instead of a file in `test_broken_files.py`, Parquet that lies in `test_hostile_parquet.py`.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from taxi_assets_tests.faults.bad_data import SPOILINGS, Spoiling, spoil, try_csv
from taxi_assets_tests.trip_files import REAL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

REAL_STARTS = sorted((REAL / "first100").glob("*.csv"))
INPUTS_A_ROUND = 1500
LONG_SECONDS = 1800


@pytest.mark.timeout(2 * LONG_SECONDS)
def test_a_spoilt_real_file_is_kept_row_by_row_or_refused_by_name(
    data: Path, tmp_path: Path, long: bool, record_property: Callable[[str, object], None]
) -> None:
    assert len(REAL_STARTS) == len(list((data / "first100").iterdir()))
    contents = {path: path.read_bytes() for path in REAL_STARTS}
    outcomes: Counter[str] = Counter()

    def check(path: Path, spoilings: Sequence[Spoiling]) -> None:
        spoilt = tmp_path / path.name
        spoilt.write_bytes(spoil(contents[path], spoilings))
        outcomes[try_csv(spoilt, tmp_path)] += 1

    ends = time.monotonic() + (LONG_SECONDS if long else 0)
    for number in itertools.count():
        limits = settings(
            max_examples=INPUTS_A_ROUND,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # what fails is small as it is
        )
        files = st.sampled_from(REAL_STARTS)
        limits(seed(number)(given(files, st.lists(SPOILINGS, min_size=1, max_size=6))(check)))()
        if time.monotonic() >= ends:
            break

    # Some of each, or nothing was tried.
    assert outcomes["kept"] > 0.3 * outcomes.total(), outcomes
    assert {"ContentRefusedError", "HeaderError", "TooManyQuarantinedError"} <= set(outcomes), outcomes
    record_property("bad inputs", outcomes.total())
    record_property("rows lost", 0)
    record_property("rows doubled", 0)
    record_property("hangs", 0)

"""What all tests share: where the real files are, and that nothing leaks in from the machine's environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
DATA = REPOSITORY / ".." / "shared" / "data"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("TAXI_", "DAGSTER_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real TLC files."""
    if not DATA.is_dir():
        pytest.skip("the real TLC files are missing: ../shared/data")
    return DATA.resolve()

"""The metrics in docs/reliability.md, which are sums over a session. `unit/test_documents.py` checks its promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.faults.reliability_metrics import BEGIN, END, ReliabilityMetrics

if TYPE_CHECKING:
    from pathlib import Path


def test_recorded_metrics_are_summed_and_written_between_the_markers(tmp_path: Path) -> None:
    metrics = ReliabilityMetrics()
    metrics.add([("kills", 1200), ("rows lost", 0), ("something else", 7)], "passed")
    metrics.add([("kills", 34), ("hangs", 0)], "passed")
    metrics.add([], "skipped")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        metrics.write_to(page)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n20")
    assert text.endswith(f"{END}\nafter\n")
    assert [line.replace(" ", "") for line in text.splitlines() if line.startswith("| ")] == [
        *("|metric|value|", "|kills|1,234|", "|rowslost|0|", "|hangs|0|", "|testspassed|2|", "|testsskipped|1|")
    ]


def test_a_page_without_the_markers_is_not_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="markers"):
        ReliabilityMetrics().write_to(page)
    assert page.read_text() == "no markers"


def test_the_long_form_on_the_page_lost_no_row() -> None:
    text = (REPOSITORY / "docs" / "reliability.md").read_text()
    kept = text.partition(BEGIN)[2].partition(END)[0]
    metrics = {
        cells[1]: int(cells[2].replace(",", "")) for cells in rows(kept) if len(cells) > 2 and cells[2][:1].isdigit()
    }
    at_least = {"kills": 300, "bad inputs": 1000, "tests passed": 100}
    assert not {name for name, minimum in at_least.items() if metrics[name] < minimum}
    assert not {name for name in ("rows lost", "rows duplicated", "hangs", "tests failed") if metrics.get(name)}


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("|")]

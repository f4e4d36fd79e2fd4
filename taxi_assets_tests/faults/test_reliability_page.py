"""docs/reliability.md: its figures are sums over a whole session. Its promises are read by `unit/test_documents.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.faults.reliability_metrics import BEGIN, END, Figures

if TYPE_CHECKING:
    from pathlib import Path


def test_what_tests_recorded_is_summed_up_and_kept_between_the_markers(tmp_path: Path) -> None:
    figures = Figures()
    figures.add([("kills", 1200), ("rows lost", 0), ("something else", 7)], "passed")
    figures.add([("kills", 34), ("hangs", 0)], "passed")
    figures.add([], "skipped")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        figures.keep(page)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n20")
    assert text.endswith(f"{END}\nafter\n")
    assert [line.replace(" ", "") for line in text.splitlines() if line.startswith("| ")] == [
        *("|tried|figure|", "|kills|1,234|", "|rowslost|0|", "|hangs|0|", "|testspassed|2|", "|testsskipped|1|")
    ]


def test_a_page_without_the_markers_is_not_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing of ours")
    with pytest.raises(ValueError, match="markers"):
        Figures().keep(page)
    assert page.read_text() == "nothing of ours"


def test_nothing_was_lost_in_the_long_run_that_the_page_keeps() -> None:
    text = (REPOSITORY / "docs" / "reliability.md").read_text()
    kept = text.partition(BEGIN)[2].partition(END)[0]
    figures = {
        cells[1]: int(cells[2].replace(",", "")) for cells in rows(kept) if len(cells) > 2 and cells[2][:1].isdigit()
    }
    at_least = {"kills": 300, "bad inputs": 1000, "tests passed": 100}
    assert not {name for name, figure in at_least.items() if figures[name] < figure}
    assert not {name for name in ("rows lost", "rows doubled", "hangs", "tests failed") if figures.get(name)}


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("|")]

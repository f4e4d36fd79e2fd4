"""docs/benchmarks.md, written from the results. One section, experiments, is written by hand and kept."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from benchmarks import full_history
from benchmarks.measure import REPOSITORY
from benchmarks.requirements import REQUIREMENTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.rounds import Result

_QUESTIONS = "views-question-"
_BEGIN, _END = "<!-- written by hand: experiments -->", "<!-- end of the section written by hand -->"

_HEAD = """# Benchmarks

This page compares the speed and memory of this project with alternatives, on the same generated months and machine. The
compared programs run in turns (A B C, A B C), each time in a new process. A value is the median of the rounds; a ratio
is the median of the ratios of the rounds. The seconds depend on the speed of the machine, the ratios do not. *The
course* is the Prefect flow of the Data Engineering Zoomcamp (see [From Prefect](from-prefect.md)).

```bash needs=hours
make bench                           # everything: takes two hours, and 15 GB in data/bench
make bench ONLY=clean,memory         # a selection; other results stay as they are
make bench REPETITIONS=5
make bench-page                      # write this page and its chart from the last results
```

The program writes this page, except for the section *Experiments*.

![Seconds and memory of cleaning a month](images/benchmarks.svg)
"""

_READING = """- **CPU-s** are the CPU seconds of all threads, in user and kernel mode.
- **Peak** is the largest resident size (`VmHWM`); for several processes, of their sum.
- **Wall time** of Python modules excludes their start, imports and preparation, which are in *start-up*. Wall time of
  commands includes them.
- **Ratio** is the wall time divided by that of the first row.
- **Others** are the CPU seconds of other processes on the machine during the run.
- **Disk wait** is the time in which at least one process on the machine waited for the disk.

*Others* and *disk wait* include start-up, and are empty if they were not recorded. If others used much of the machine,
the wall time says little about the program: measure again on an idle machine. The CPU seconds of Postgres count as
others, because it runs in separate processes."""


def write(results: Mapping[str, Result], path: Path) -> None:
    """Write the page, and keep the section between the markers."""
    parts = [
        _HEAD,
        "## Machines and versions\n",
        _origins(results),
        "\n## Requirements\n",
        _requirements(results),
        "\n## Measurements\n",
        f"{_READING}\n",
        *(_measurements(result) for name, result in results.items() if not name.startswith(_QUESTIONS)),
        _questions([result for name, result in results.items() if name.startswith(_QUESTIONS)]),
        "## Measured programs\n",
        _peers(),
        "\n## Experiments\n",
        f"{_BEGIN}\n{_handwritten_section(path)}\n{_END}",
        "\n## Estimate for the full history\n",
        f"{_first_paragraphs(full_history.__doc__, paragraphs=2)}\n",
        full_history.tables(results),
    ]
    path.write_text("\n".join(parts) + "\n")


def _handwritten_section(path: Path) -> str:
    text = path.read_text() if path.exists() else ""
    return text.partition(_BEGIN)[2].partition(_END)[0].strip()


def _origins(results: Mapping[str, Result]) -> str:
    """Return a table with one line for the comparisons of each machine, versions and commit."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in results.values():
        groups.setdefault((result.machine, result.versions, result.commit), []).append(result)
    lines = ["| measured | machine | versions | commit | comparisons |", "|---|---|---|---|---|"]
    for (machine, versions, commit), group in groups.items():
        times = sorted(result.measured for result in group)
        span = times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"
        lines.append(f"| {span} | {machine} | {versions} | {commit} | {', '.join(r.name for r in group)} |")
    return "\n".join(lines)


def _requirements(results: Mapping[str, Result]) -> str:
    lines = ["| area | metric | limit | measured | result |", "|---|---|--:|--:|---|"]
    for one in REQUIREMENTS:
        value, verdict = one.evaluate(results)
        lines.append(f"| {one.area} | {one.label} | {one.limit_text} | {value} | {verdict} |")
    return "\n".join(lines)


def _measurements(result: Result) -> str:
    rounds = len(next(iter(result.peers.values())))
    lines = [
        f"**{result.title}** ({rounds} round{'' if rounds == 1 else 's'})\n",
        "| program | wall s | CPU-s | peak MB | written MB | start-up s | others CPU-s | disk wait s | ratio |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    base = next(iter(result.peers))
    for peer in result.peers:
        wall, cpu, peak, written, start = (
            result.median(peer, label) for label in ("wall", "cpu", "peak", "bytes", "start_up")
        )
        cells = [
            peer,
            f"{wall:.2f}",
            f"{cpu:.2f}",
            f"{peak:,.0f}",
            f"{written / 1e6:,.1f}" if written else "",
            f"{start:.1f}" if start else "",
            *(_optional_median(result, peer, label) for label in ("others_cpu", "disk_wait")),
            f"{result.ratio(peer, base, 'wall'):.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _questions(results: Sequence[Result]) -> str:
    """Return one table for the comparisons of two peers that differ only in the question."""
    if not results:
        return ""
    base, other = results[0].peers
    lines = [
        f"**Questions about trips, as {base} and as {other}** ({len(results[0].peers[base])} rounds)\n",
        f"| question | {base}: wall s | {other}: wall s | wall ratio | {base}: CPU-s | {other}: CPU-s | CPU ratio |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for result in results:
        cells = [result.title]
        for label in ("wall", "cpu"):
            cells += [f"{result.median(peer, label):.3f}" for peer in (base, other)]
            cells.append(f"{result.ratio(other, base, label):.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _optional_median(result: Result, peer: str, label: str) -> str:
    """Return the median as text, or an empty text if a round did not record it."""
    recorded = all(getattr(measured, label) is not None for measured in result.peers[peer])
    return f"{result.median(peer, label):.1f}" if recorded else ""


def _peers() -> str:
    """Return a list of the peers with their module docstrings."""
    files = sorted((REPOSITORY / "benchmarks" / "peers").glob("*.py"))
    docs = {
        file.stem: _first_paragraphs(ast.get_docstring(ast.parse(file.read_text())), paragraphs=2) for file in files
    }
    return "\n".join(f"- `{name}`: {' '.join(text.split())}" for name, text in docs.items() if name != "__init__")


def _first_paragraphs(text: str | None, *, paragraphs: int) -> str:
    prose = [part for part in (text or "").split("\n\n") if not part.startswith("    ")]
    return "\n\n".join(prose[:paragraphs]).strip()

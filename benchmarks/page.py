"""docs/benchmarks.md, from the results. One section is written by hand, and kept: what was tried."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from benchmarks import growth
from benchmarks.measure import REPOSITORY
from benchmarks.requirements import REQUIREMENTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.rounds import Result

_BEGIN, _END = "<!-- by hand: what was tried -->", "<!-- by hand: end -->"

_HEAD = """# Speed and memory, side by side

What the platform costs beside what you would otherwise run: the same generated months, the same machine, the same hour.
Who is compared takes turns (A B C, A B C), each time in a fresh process; a figure is the median of the rounds, a ratio
the median of the rounds' ratios. The machine's own speed is in the seconds, not in the ratios.

```bash needs=hours
make bench                           # all of it: takes two hours, and 15 GB in data/bench
make bench ONLY=clean,memory         # some of it; the rest stays as it was last measured
make bench REPETITIONS=5
make bench-page                      # this page and its picture anew, from what was last measured
```

This page is written by the program, but for *What was tried*.

![Seconds and memory of cleaning a month](images/benchmarks.svg)
"""

_READING = """CPU-s are those of all threads, with the system's. Peak is the largest resident size (`VmHWM`), of all
processes together where there are several. Wall time of what is run in Python is without its start and imports, which
stand beside it, together with what was prepared; that of commands is with them. The last column is the wall time by
that of the first line.

*Others* are the CPU-s that other processes on the machine used during the run; *disk wait* is the time in which at
least one process on the machine waited for the disk. Both include start-up, and both are empty where they were not
recorded. Where others used much of the machine, the wall time is not a property of the platform: measure again on a
quiet machine. Postgres runs in processes of its own, so its CPU-s are among those of others."""


def write(results: Mapping[str, Result], path: Path) -> None:
    """Write the page; what stands between the markers stays."""
    parts = [
        _HEAD,
        "## Where and when\n",
        _origins(results),
        "\n## What must hold\n",
        _requirements(results),
        "\n## Figures\n",
        f"{_READING}\n",
        *map(_figures, results.values()),
        "## Who is measured\n",
        _peers(),
        "\n## What was tried\n",
        f"{_BEGIN}\n{_kept(path)}\n{_END}",
        "\n## Growth on paper\n",
        f"{_first(growth.__doc__, paragraphs=2)}\n",
        growth.tables(results),
    ]
    path.write_text("\n".join(parts) + "\n")


def _kept(path: Path) -> str:
    text = path.read_text() if path.exists() else ""
    return text.partition(_BEGIN)[2].partition(_END)[0].strip()


def _origins(results: Mapping[str, Result]) -> str:
    """Comparisons that were measured on the same machine, versions and commit, in a line."""
    found: dict[tuple[str, str, str], list[Result]] = {}
    for result in results.values():
        found.setdefault((result.machine, result.versions, result.commit), []).append(result)
    lines = ["| measured | machine | versions | commit | comparisons |", "|---|---|---|---|---|"]
    for (machine, versions, commit), those in found.items():
        when = sorted(result.measured for result in those)
        span = when[0] if when[0] == when[-1] else f"{when[0]} to {when[-1]}"
        lines.append(f"| {span} | {machine} | {versions} | {commit} | {', '.join(r.name for r in those)} |")
    return "\n".join(lines)


def _requirements(results: Mapping[str, Result]) -> str:
    lines = ["| | | limit | measured | |", "|---|---|--:|--:|---|"]
    for one in REQUIREMENTS:
        figure, verdict = one.text(results)
        lines.append(f"| {one.area} | {one.label} | {one.limit_text} | {figure} | {verdict} |")
    return "\n".join(lines)


def _figures(result: Result) -> str:
    rounds = len(next(iter(result.peers.values())))
    lines = [
        f"**{result.title}** ({rounds} rounds)\n",
        "| | wall s | CPU-s | peak MB | written MB | start, set-up s | others CPU-s | disk wait s | wall, ratio |",
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
            *(_known(result, peer, label) for label in ("others_cpu", "disk_wait")),
            f"{result.ratio(peer, base, 'wall'):.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _known(result: Result, peer: str, label: str) -> str:
    """The median, or nothing where a round did not record it."""
    recorded = all(getattr(figures, label) is not None for figures in result.peers[peer])
    return f"{result.median(peer, label):.1f}" if recorded else ""


def _peers() -> str:
    """What their modules say of themselves."""
    files = sorted((REPOSITORY / "benchmarks" / "peers").glob("*.py"))
    docs = {file.stem: _first(ast.get_docstring(ast.parse(file.read_text())), paragraphs=2) for file in files}
    return "\n".join(f"- `{name}`: {' '.join(text.split())}" for name, text in docs.items() if name != "__init__")


def _first(text: str | None, *, paragraphs: int) -> str:
    prose = [part for part in (text or "").split("\n\n") if not part.startswith("    ")]
    return "\n\n".join(prose[:paragraphs]).strip()

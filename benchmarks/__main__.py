"""`make bench`: measure, keep the results, write docs/benchmarks.md and its chart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks import chart, cleaning, loading, page, running
from benchmarks.bench import Bench
from benchmarks.measure import REPOSITORY
from benchmarks.requirements import REQUIREMENTS
from benchmarks.rounds import Comparison, Results, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

GROUPS: Mapping[str, Callable[[Bench], list[Comparison]]] = {
    "clean": cleaning.comparisons,
    "memory": running.memory,
    "chain": running.chain,
    "overhead": running.overhead,
    "load": loading.duckdb,
    "postgres": loading.postgres,
    "backfill": running.backfill,
    "marts": running.marts,
    "sensor": running.sensor,
    "growth": running.growth,
}
RESULTS = Path(__file__).with_name("results.json")
_NONE = "none"


@click.command()
@click.option("--only", default="", help=f"Groups, or the beginnings of comparisons' names: {', '.join(GROUPS)}; none.")
@click.option("--repetitions", type=click.IntRange(1), default=3, show_default=True, help="Rounds of each comparison.")
@click.option("--data", type=click.Path(path_type=Path), default=REPOSITORY / "data" / "bench", help="Months, results.")
@click.option("--scale", default=1.0, help="Smaller months, to try it out; their results go into no page.")
def main(only: str, repetitions: int, data: Path, scale: float) -> None:
    """Measure all comparisons, or those asked for."""
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    with Bench.in_folder(data.absolute(), scale) as bench:
        results = Results(RESULTS if scale == 1 else data / f"results-{scale:g}.json")
        every = [comparison for comparisons in GROUPS.values() for comparison in comparisons(bench)]
        chosen = [one for one in every if not wanted or one.name.startswith(tuple(wanted))]
        if not chosen and wanted != [_NONE]:
            raise click.UsageError(f"There is no {only!r}. There are: {', '.join(one.name for one in every)}.")
        for comparison in chosen:
            results.add(compare(comparison, repetitions))
    known = {one.name: results.of[one.name] for one in every if one.name in results.of}
    docs = REPOSITORY / "docs" if scale == 1 else data
    (docs / "images").mkdir(exist_ok=True)
    chart.draw(known, docs / "images" / "benchmarks.svg")
    page.write(known, docs / "benchmarks.md")
    for one in REQUIREMENTS:
        figure, verdict = one.text(known)
        click.echo(f"{one.area}, {one.label}: {figure} ({one.limit_text}) {verdict}")


if __name__ == "__main__":
    main()

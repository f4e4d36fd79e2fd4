"""`make bench`: measure, store the results, write docs/benchmarks.md and its chart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks import chart, cleaning, loading, page, revisions, running, unusual_values, views
from benchmarks.bench import Bench
from benchmarks.measure import REPOSITORY
from benchmarks.requirements import REQUIREMENTS
from benchmarks.rounds import Comparison, Results, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

GROUPS: Mapping[str, Callable[[Bench], list[Comparison]]] = {
    "clean": cleaning.comparisons,
    "unusual-values": unusual_values.comparisons,
    "memory": running.memory,
    "pipeline": running.pipeline,
    "overhead": running.overhead,
    "load": loading.duckdb,
    "postgres": loading.postgres,
    "iceberg": loading.iceberg,
    "read": loading.reading,
    "backfill": running.backfill,
    "marts": running.marts,
    "views": views.comparisons,
    "sensor": running.sensor,
    "revisions": revisions.comparisons,
    "full-months": running.full_months,
}
RESULTS = Path(__file__).with_name("results.json")
_NONE = "none"


@click.command()
@click.option("--only", default="", help=f"Groups, or prefixes of comparison names: {', '.join(GROUPS)}; none.")
@click.option("--repetitions", type=click.IntRange(1), default=3, show_default=True, help="Rounds of each comparison.")
@click.option(
    "--data", type=click.Path(path_type=Path), default=REPOSITORY / "data" / "bench", help="Folder for input files."
)
@click.option("--scale", default=1.0, help="Below 1: smaller months, for a trial; the results are not published.")
def main(only: str, repetitions: int, data: Path, scale: float) -> None:
    """Measure all comparisons, or a selection of them."""
    selected = [name.strip() for name in only.split(",") if name.strip()]
    with Bench.in_folder(data.absolute(), scale) as bench:
        results = Results(RESULTS if scale == 1 else data / f"results-{scale:g}.json")
        every = [comparison for comparisons in GROUPS.values() for comparison in comparisons(bench)]
        chosen = [one for one in every if not selected or one.name.startswith(tuple(selected))]
        if not chosen and selected != [_NONE]:
            raise click.UsageError(f"Unknown comparison {only!r}. Choose from: {', '.join(one.name for one in every)}.")
        for comparison in chosen:
            results.add(compare(comparison, repetitions))
    known = {one.name: results.by_name[one.name] for one in every if one.name in results.by_name}
    docs = REPOSITORY / "docs" if scale == 1 else data
    (docs / "images").mkdir(exist_ok=True)
    chart.draw(known, docs / "images" / "benchmarks.svg")
    page.write(known, docs / "benchmarks.md")
    for one in REQUIREMENTS:
        value, verdict = one.evaluate(known)
        click.echo(f"{one.area}, {one.label}: {value} ({one.limit_text}) {verdict}")


if __name__ == "__main__":
    main()

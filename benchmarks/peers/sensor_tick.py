"""A tick of a publication sensor on an instance with a number of loaded, unchanged months."""

from __future__ import annotations

import sys
from pathlib import Path

import dagster as dg

from benchmarks.measure import measure_here
from taxi_assets.tlc.month import Month
from taxi_assets_tests.definitions.publication_harness import PublicationHarness

_LAST = Month(2021, 3)


def main(folder: Path, months: int) -> None:
    """Measure the first tick on this instance, without a cursor."""
    (folder / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(folder / "dagster")) as instance:
        harness = PublicationHarness(folder / "published", instance)
        names = [str(_LAST.shift(-number)) for number in range(months)]
        harness.publish(*names)
        for name in names:
            harness.load(name)
        measure_here(harness.tick)
        if "no run requested" not in harness.skip_message:
            raise SystemExit(f"That was not an idle tick: {harness.skip_message}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

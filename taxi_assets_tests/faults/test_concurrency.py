"""Runs beside each other, in processes of their own: they end well, and the data is as after one run.

They meet at a gate at the worst moments: when all have made something, and none has published it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.chain import Deployment, failures, leftovers, look
from taxi_assets_tests.faults.children import Child, Plan, meeting
from taxi_assets_tests.faults.conftest import FILE, MONTH, NEIGHBOUR, SERVICE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from taxi_assets_tests.faults.conftest import Republished


def run_at_once(deployment: Deployment, months: Sequence[str], *, meets: str) -> None:
    gate = meeting(len(months))
    children = [Child(deployment, SERVICE, month, Plan(meets=meets, gate=gate)) for month in months]
    for outcome in [child.end() for child in children]:
        assert outcome.succeeded, outcome
        assert meets in outcome.moments


@pytest.mark.parametrize(
    ("start", "meets"),
    [
        ("empty", "publishing raw object"),
        ("empty", "before loading"),
        ("held", "publishing quarantine"),
    ],
)
def test_the_same_month_twice(
    republished: Republished, copy_of: Callable[[Deployment], Deployment], start: str, meets: str
) -> None:
    deployment = copy_of(getattr(republished, start))
    run_at_once(deployment, [MONTH, MONTH], meets=meets)
    assert look(deployment, SERVICE, MONTH) == republished.newer
    assert leftovers(deployment) == []


@pytest.mark.parametrize(
    ("months", "meets"),
    [
        ([MONTH, NEIGHBOUR], "before loading"),
        ([MONTH, NEIGHBOUR, MONTH, NEIGHBOUR], "publishing raw object"),
    ],
)
def test_two_months_of_a_service(
    republished: Republished, copy_of: Callable[[Deployment], Deployment], months: list[str], meets: str
) -> None:
    deployment = copy_of(republished.empty)
    run_at_once(deployment, months, meets=meets)
    assert look(deployment, SERVICE, MONTH) == republished.newer
    assert look(deployment, SERVICE, NEIGHBOUR) == look(republished.held, SERVICE, NEIGHBOUR)
    assert leftovers(deployment) == []


@pytest.mark.parametrize("waits", ["publishing quarantine", "publishing clean", "before loading"])
def test_a_run_with_an_older_file_is_overtaken_by_one_with_a_newer(
    republished: Republished, tmp_path: Path, waits: str
) -> None:
    """The slow one fails, unless all that is held then belongs together; the next run puts it right."""
    deployment = Deployment(tmp_path / "home", str(tmp_path))
    (tmp_path / FILE).write_bytes(republished.older_file)
    gate = meeting(2)
    slow = Child(deployment, SERVICE, MONTH, Plan(meets=waits, gate=gate, stays=True))
    gate.wait()
    (tmp_path / FILE).write_bytes(republished.newer_file)
    overtaking = deployment.run(SERVICE, MONTH)
    gate.wait()
    outcome = slow.end()

    assert failures(overtaking) == []
    assert look(deployment, SERVICE, MONTH).agree or not outcome.succeeded
    assert outcome.succeeded or len(outcome.failures) == 1 or not outcome.checks["rows_conserved"]
    assert failures(deployment.run(SERVICE, MONTH)) == []
    found = look(deployment, SERVICE, MONTH)
    assert found.agree
    assert found.clean == republished.newer.clean
    assert leftovers(deployment) == []

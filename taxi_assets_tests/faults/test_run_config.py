"""Rules chosen for a run: none is plain extract and load; an unknown one ends the run before it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pytest

from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets_tests.faults.conftest import MONTH, SERVICE
from taxi_assets_tests.pipeline_harness import Deployment, failures, metadata_value, read_stored_month

if TYPE_CHECKING:
    from collections.abc import Callable

    from taxi_assets_tests.faults.conftest import Republished


def test_without_rules_every_readable_row_is_loaded_and_with_them_again_as_before(
    republished: Republished, copy_of: Callable[[Deployment], Deployment]
) -> None:
    deployment = copy_of(republished.current)
    result = deployment.run(SERVICE, MONTH, rules=[])
    assert failures(result) == []
    assert metadata_value(result, "raw/green_trips", "fetched") == "unchanged"
    found = read_stored_month(deployment, SERVICE, MONTH)
    assert found.agree
    assert found.clean is not None
    assert found.quarantine is not None
    assert (found.clean.rows, found.quarantine.rows, len(found.warehouse)) == (1400, 0, 1400)

    assert failures(deployment.run(SERVICE, MONTH)) == []
    assert read_stored_month(deployment, SERVICE, MONTH) == republished.newer


def test_an_unknown_rule_is_refused_before_anything_runs(
    republished: Republished, copy_of: Callable[[Deployment], Deployment]
) -> None:
    deployment = copy_of(republished.empty)
    with pytest.raises(dg.DagsterInvalidConfigError) as refusal:
        deployment.run(SERVICE, MONTH, rules=["zero_passengers", "zero_pasengers"])
    assert not deployment.home.exists()
    assert "zero_pasengers" in str(refusal.value)
    for rule in SERVICES[SERVICE].rules:
        assert rule.name in str(refusal.value)

"""Rules in the run config: an empty list loads every readable row, and an unknown rule prevents the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pytest

from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets_tests.faults.conftest import MONTH, SERVICE
from taxi_assets_tests.pipeline_harness import Deployment, failure_messages, metadata_value, read_stored_month

if TYPE_CHECKING:
    from collections.abc import Callable

    from taxi_assets_tests.faults.conftest import Republished


def test_an_empty_list_of_rules_loads_every_readable_row_for_one_run_only(
    republished: Republished, copy_of: Callable[[Deployment], Deployment]
) -> None:
    deployment = copy_of(republished.current)
    result = deployment.run(SERVICE, MONTH, rules=[])
    assert failure_messages(result) == []
    assert metadata_value(result, "raw/green_trips", "fetched") == "unchanged"
    found = read_stored_month(deployment, SERVICE, MONTH)
    assert found.is_consistent
    assert found.clean is not None
    assert found.quarantine is not None
    assert (found.clean.rows, found.quarantine.rows, len(found.warehouse)) == (1400, 0, 1400)

    assert failure_messages(deployment.run(SERVICE, MONTH)) == []
    assert read_stored_month(deployment, SERVICE, MONTH) == republished.newer


def test_an_unknown_rule_prevents_the_run(
    republished: Republished, copy_of: Callable[[Deployment], Deployment]
) -> None:
    deployment = copy_of(republished.empty)
    with pytest.raises(dg.DagsterInvalidConfigError) as error:
        deployment.run(SERVICE, MONTH, rules=["zero_passengers", "zero_pasengers"])
    assert not deployment.home.exists()
    assert "zero_pasengers" in str(error.value)
    for rule in SERVICES[SERVICE].rules:
        assert rule.name in str(error.value)

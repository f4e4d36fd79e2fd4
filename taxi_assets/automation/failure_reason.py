"""Find the reason of a failed run in its events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Sequence


def failure_reason(events: Sequence[dg.DagsterEvent]) -> str:
    """What went wrong in a run, in one line: the blocking check that failed, or the error of the step."""
    for event in events:
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR:
                return f"{check.asset_key.to_user_string()}, check {check.check_name}: {check.description}"
    for event in events:
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            data = event.step_failure_data
            if data.user_failure_data is not None and data.user_failure_data.description:
                return data.user_failure_data.description
            error = data.error.cause or data.error if data.error else None
            return error.message.strip().splitlines()[0] if error else "The step failed."
    return "The run failed before its first step."

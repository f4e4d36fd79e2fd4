"""Find the months that were built by other rules, columns or code than today's, and say what has changed.

Dagster's UI marks the same months as stale. Does not belong here: months that the publisher has revised
(`publication/`), and requesting runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taxi_assets.automation.publication.materializations import clean_builds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import dagster as dg

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service


@dataclass(frozen=True)
class OutdatedMonth:
    """A month whose clean layer was built by other rules, columns or code than today's."""

    month: Month
    changes: tuple[str, ...]
    """What has changed since, one sentence each; at least one."""


def outdated_months(instance: dg.DagsterInstance, service: Service) -> list[OutdatedMonth]:
    """Return the outdated months of a service, oldest first.

    The answer comes from the latest materialization of each month, so the lake is not read. The following months are
    not outdated:

    - Months that a run cleaned with a selection of the rules in its run config. Run config is not code.
    - Months whose materialization was reported by hand. Their code version is unknown.

    Args:
        instance: The Dagster instance with the materializations.
        service: The service with its current rules and columns.
    """
    return [
        OutdatedMonth(month, tuple(_changes(build.code_parts, service)))
        for month, build in sorted(clean_builds(instance, service).items())
        if build.code_version not in {None, service.code_version}
    ]


def _changes(then: Mapping[str, Any] | None, service: Service) -> Iterator[str]:
    if then is None:
        yield "It was built before the reasons were recorded."
        return
    now = service.code_parts
    if then["columns"] != now["columns"]:
        yield "The columns have changed."
    if then["code"] != now["code"]:
        yield "The code that reads and cleans files has changed."
    old, new = dict(then["rules"]), dict(now["rules"])
    yield from (f"The rule {name} is new." for name in new if name not in old)
    yield from (f"The rule {name} was removed." for name in old if name not in new)
    yield from (f"The rule {name} was: {old[name]}" for name in new if name in old and old[name] != new[name])
    if list(old) != list(new) and sorted(old) == sorted(new):
        yield "The order of the rules has changed."

"""Find the months that were built by other rules, columns, marts or code than today's, and say what has changed.

Dagster's UI marks the same months as stale or missing. Does not belong here: months that the publisher has revised
(`publication/`), and requesting runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from taxi_assets.automation.publication.materializations import latest_builds
from taxi_assets.marts.mart import marts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from taxi_assets.automation.publication.materializations import Build
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service


@dataclass(frozen=True)
class OutdatedMonth:
    """A month whose clean layer or marts were built by other rules, columns, marts or code than today's."""

    month: Month
    changes: tuple[str, ...]
    """What has changed since, one sentence each; at least one."""


def outdated_months(instance: dg.DagsterInstance, service: Service) -> list[OutdatedMonth]:
    """Return the outdated months of a service, oldest first.

    A month is outdated if other code has built its clean layer or one of its marts, or if it lacks a mart although it
    has others. The answer comes from the latest materialization of each month, so lake and warehouse are not read. The
    following months are not outdated:

    - Months that a run cleaned with a selection of the rules in its run config. Run config is not code.
    - Months that are pinned to a revision.
    - Months whose materialization was reported by hand. Their code version is unknown.

    Args:
        instance: The Dagster instance with the materializations.
        service: The service with its current rules and columns.
    """
    clean = latest_builds(instance, dg.AssetKey(["clean", service.table]))
    of_service = [mart for mart in marts().values() if service.name in {one.name for one in mart.services}]
    built = {mart.name: latest_builds(instance, dg.AssetKey(["marts", mart.name])) for mart in of_service}
    versions = {mart.name: mart.version for mart in of_service}
    found = []
    for month, build in sorted(clean.items()):
        if build.pinned:
            continue
        changes = [] if build.code_version in {None, service.code_version} else [*_changes(build.code_parts, service)]
        changes += _mart_changes({name: months.get(month) for name, months in built.items()}, versions)
        if changes:
            found.append(OutdatedMonth(month, tuple(changes)))
    return found


def _mart_changes(builds: Mapping[str, Build | None], versions: Mapping[str, str]) -> Iterator[str]:
    if not any(builds.values()):  # marts are not in use
        return
    for name, build in builds.items():
        if build is None:
            yield f"The mart {name} is new."
        elif build.code_version not in {None, versions[name]}:
            yield f"The mart {name} has changed."


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

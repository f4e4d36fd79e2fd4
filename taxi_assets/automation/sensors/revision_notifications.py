"""The sensor that sends a notification of each month that the publisher has revised.

The asset of the comparison computes the message (`assets/revisions.py`). Like the other notification sensors, this one
is a plain sensor, so that a tick sends one message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets.automation.sensors.notification_sensors import (
    EVENTS_PER_TICK,
    INTERVAL_SECONDS,
    MAX_LINE_CHARACTERS,
    MAX_LISTED,
    MAX_TITLE_CHARACTERS,
    enumerated,
    one_line,
    send,
)
from taxi_assets.notifications.client import Message
from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import SecretStr

REVISION = "revision"
"""Metadata key under which a comparison of revisions stores its outcome in words."""

NEWER, OLDER = "newer", "older"
"""Metadata keys under which a comparison stores the digest and the origin of each file."""

NOTHING_TO_COMPARE = "nothing_to_compare"
"""Metadata key of the materialization of a month without an older revision. It is not reported."""


@dataclass(frozen=True)
class RevisedMonth:
    """A month whose two newest revisions were compared."""

    subject: str
    """Service and month."""
    message: str
    """How the revisions differ, in one line."""
    link: str
    """URL of the comparison in the UI; the asset's key if TAXI_UI_URL is not set."""


def revisions_message(revised: Sequence[RevisedMonth]) -> Message:
    """Return the message that reports revised months, with a paragraph for each."""
    paragraphs = [f"{each.message}\n{each.link}" for each in revised[:MAX_LISTED]]
    if rest := [each.subject for each in revised[MAX_LISTED:]]:
        paragraphs.append(f"And {', '.join(rest)}.")
    subjects = enumerated([each.subject for each in revised], MAX_LISTED)
    title = one_line(f"The publisher revised: {subjects}", MAX_TITLE_CHARACTERS)
    return Message("warning", title, "\n\n".join(paragraphs))


def revisions_sensor(notifiers: SecretStr, *, ui_url: str | None = None) -> dg.SensorDefinition:
    """Return the sensor that reports comparisons of revised months. It is on by default.

    Args:
        notifiers: The notifiers' addresses, as in TAXI_NOTIFY_URLS.
        ui_url: Base URL of Dagster's UI, for links. None: messages name the asset instead.
    """

    @dg.sensor(
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports each comparison of a revised month once: how many rows differ, and by how many dollars. "
        "Comparisons found in one tick share a message.",
    )
    def notify_revisions(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        assets = {service.name: dg.AssetKey(["revisions", service.table]) for service in SERVICES.values()}
        if not (context.cursor or "").isdecimal():  # the first tick: report only later comparisons
            known = [_materializations(context, asset, None) for asset in assets.values()]
            context.update_cursor(str(max((record.storage_id for records in known for record in records), default=0)))
            return dg.SkipReason("First tick: later comparisons are reported.")
        found = sorted(
            (
                (record.storage_id, service, record)
                for service, asset in assets.items()
                for record in _materializations(context, asset, int(context.cursor or 0))
            ),
            key=lambda each: each[0],
        )[:EVENTS_PER_TICK]
        if not found:
            return dg.SkipReason("Nothing to report.")
        context.update_cursor(str(found[-1][0]))
        new = [
            _revised_month(service, record, ui_url)
            for _, service, record in found
            if not _has_nothing_to_compare(record) and not _is_repeated(context, record)
        ]
        if not new:
            return dg.SkipReason("Nothing to report: no other revisions than before were compared.")
        return send(context, notifiers, revisions_message(new))

    return notify_revisions


def _materializations(
    context: dg.SensorEvaluationContext, asset: dg.AssetKey, after: int | None
) -> Sequence[dg.EventLogRecord]:
    """Return the materializations after an event, in order; without an event, the newest one."""
    wanted = dg.AssetRecordsFilter(asset, after_storage_id=after)
    limit, ascending = (1, False) if after is None else (EVENTS_PER_TICK, True)
    return context.instance.fetch_materializations(wanted, limit=limit, ascending=ascending).records


def _has_nothing_to_compare(record: dg.EventLogRecord) -> bool:
    return record.asset_materialization is not None and NOTHING_TO_COMPARE in record.asset_materialization.metadata


def _is_repeated(context: dg.SensorEvaluationContext, record: dg.EventLogRecord) -> bool:
    """Return whether the month's comparison before this one was of the same two files, such as after a new rule."""
    # Only the digests count: the time of the download changes when the same bytes are downloaded again.
    materialization = record.asset_materialization
    assert materialization is not None  # noqa: S101  (the records are of materializations)
    wanted = dg.AssetRecordsFilter(
        materialization.asset_key,
        asset_partitions=[str(materialization.partition)],
        before_storage_id=record.storage_id,
    )
    before = context.instance.fetch_materializations(wanted, limit=1).records
    compared = [
        [str(each.metadata[name].value).partition(",")[0] for name in (NEWER, OLDER) if name in each.metadata]
        for each in (materialization, *(found.asset_materialization for found in before))
        if each is not None
    ]
    return len(compared) == 2 and compared[0] == compared[1] != []


def _revised_month(service: str, record: dg.EventLogRecord, ui_url: str | None) -> RevisedMonth:
    materialization = record.asset_materialization
    assert materialization is not None  # noqa: S101  (the records are of materializations)
    asset, month = materialization.asset_key.to_user_string(), str(materialization.partition)
    sentence = materialization.metadata.get(REVISION)
    return RevisedMonth(
        subject=f"{service} {month}",
        message=one_line(str(sentence.value) if sentence else f"{service} {month} was revised", MAX_LINE_CHARACTERS),
        link=f"{ui_url}/assets/{asset}?view=partitions&partition={month}" if ui_url else f"Asset {asset}",
    )

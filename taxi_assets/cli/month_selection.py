"""Choose the months of a command: a range, a list, those that are published, or those that are outdated."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import click
import dagster as dg

from taxi_assets.automation.outdated_months import outdated_months
from taxi_assets.errors import TaxiAssetsError
from taxi_assets.partitions import monthly_partitions
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taxi_assets.settings import Settings

PUBLISHED, OUTDATED = "published", "outdated"
_QUESTIONS_AT_ONCE = 8


def select_months(service: str, months: str | None, *, first: str | None, last: str | None) -> list[str]:
    """Return the months that the options name, oldest first. Nothing is asked or read.

    Args:
        service: Name of the service.
        months: A list such as "2013-08,2020-10"; "published" or "outdated": all months of the range, for
            `published_months` or `outdated_months_of` to select from; None: all months of the range.
        first: The first month of the range, such as "2020-01"; None for the first of the service.
        last: The last month, included; None for the last that has ended.

    Raises:
        click.UsageError: A month is malformed, the service does not have it, the range is empty or incomplete, or both
            a list and a range are given.
    """
    if months in {PUBLISHED, OUTDATED}:
        return _months_between(service, first, last)
    if months is not None:
        if first or last:
            raise click.UsageError("Give either a list of months or a range, not both.")
        return sorted({_parse(service, text.strip()) for text in months.split(",")})
    if not (first and last):
        raise click.UsageError("The range is incomplete. Set FROM and TO, or MONTHS (--from and --to, or --months).")
    return _months_between(service, first, last)


def published_months(service: str, months: Sequence[str], settings: Settings) -> list[str]:
    """Return those of the months that the publisher has, and print how many there are.

    Raises:
        click.ClickException: The publisher has none of them, refuses a request, or cannot be reached.
    """
    from taxi_assets.build import build_stores  # noqa: PLC0415  (in other commands, the worker pool loads it)

    with dg.build_resources({"publisher": build_stores(settings)["publisher"]}) as resources:
        found = SERVICES[service]
        try:
            publisher = resources.publisher.publisher_of(found)

            def is_published(month: str) -> bool:
                urls = publisher.source_urls(found, Month.parse(month))
                return resources.publisher.check_version(f"{service} {month}", urls, known=None) is not None

            with ThreadPoolExecutor(_QUESTIONS_AT_ONCE) as pool:
                published = [month for month, has in zip(months, pool.map(is_published, months), strict=True) if has]
        except TaxiAssetsError as error:
            raise click.ClickException(f"{error}\nNo run was started.") from None
    if not published:
        raise click.ClickException(f"{publisher.name} has no month of {service} {_span(months)}. Check TAXI_SOURCE.")
    click.echo(f"{publisher.name} has {len(published)} of the {len(months)} months of {service} {_span(months)}.")
    return published


def outdated_months_of(service: str, months: Sequence[str]) -> list[str]:
    """Return those of the months that are outdated, and print how many there are and what has changed."""
    with dg.DagsterInstance.get() as instance:
        found = [
            outdated for outdated in outdated_months(instance, SERVICES[service]) if str(outdated.month) in {*months}
        ]
    nothing = "" if found else " Nothing to do."
    click.echo(f"Outdated months of {service} {_span(months)}: {len(found)}.{nothing}")
    for change in dict.fromkeys(change for outdated in found for change in outdated.changes):
        click.echo(f"  {change}")
    return [str(outdated.month) for outdated in found]


def _span(months: Sequence[str]) -> str:
    return f"from {months[0]} to {months[-1]}"


def _months_between(service: str, first: str | None, last: str | None) -> list[str]:
    known = monthly_partitions(SERVICES[service]).get_partition_keys()
    start, end = _parse(service, first or known[0]), _parse(service, last or known[-1])
    if start > end:
        raise click.UsageError(f"The range is empty: {start} is later than {end}.")
    return [month for month in known if start <= month <= end]


def _parse(service: str, text: str) -> str:
    known = monthly_partitions(SERVICES[service]).get_partition_keys()
    try:
        month = str(Month.parse(text))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if month not in known:
        raise click.UsageError(f"{service} has no month {month}: it has {known[0]} to {known[-1]}.")
    return month

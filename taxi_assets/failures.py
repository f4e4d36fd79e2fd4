"""From our errors to Dagster's failures: one line of text, and marked where no retry policy should repeat them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets.errors import TaxiAssetsError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def as_failures() -> Iterator[None]:
    """Turn a named error into a `dagster.Failure` that says what happened and what to do."""
    try:
        yield
    except TaxiAssetsError as error:
        raise dg.Failure(str(error), allow_retries=isinstance(error, TransientError)) from error

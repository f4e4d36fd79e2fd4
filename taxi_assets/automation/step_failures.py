"""From our errors to Dagster's failures: one line of text, and marked where no retry policy should repeat them.

A step that another run has overtaken is retried at once, whatever its retry policy: its inputs are loaded again, so
that it continues with what the other run has published.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets.errors import ConcurrentUpdateError, LakeConflictError, TaxiAssetsError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator


CONCURRENT_UPDATE_RETRIES = 3
"""How often a step is retried because another run has replaced what it works on. Each time the other run has won."""
_CONCURRENT_UPDATE_DELAY_SECONDS = 1


@contextmanager
def as_failures(*, retry_number: int = CONCURRENT_UPDATE_RETRIES) -> Iterator[None]:
    """Turn a named error into a `dagster.Failure` that says what happened and what to do.

    Args:
        retry_number: How many attempts of the step have failed already. Given for a step that can be retried when
            another run has overtaken it; by default it is not retried.

    Raises:
        dagster.Failure: For every named error.
        dagster.RetryRequested: Another run has replaced what the step works on, and there are retries left.
    """
    try:
        yield
    except (LakeConflictError, ConcurrentUpdateError) as error:
        if retry_number < CONCURRENT_UPDATE_RETRIES:
            raise dg.RetryRequested(
                CONCURRENT_UPDATE_RETRIES, seconds_to_wait=_CONCURRENT_UPDATE_DELAY_SECONDS
            ) from error
        raise dg.Failure(str(error), allow_retries=isinstance(error, TransientError)) from error
    except TaxiAssetsError as error:
        raise dg.Failure(str(error), allow_retries=isinstance(error, TransientError)) from error

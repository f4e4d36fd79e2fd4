"""Convert errors of this package to failures of a Dagster step, and decide whether the step is retried.

- Permanent errors are not retried, except `LakeConflictError` (see below). Transient errors are retried by the retry
  policy of the step.
- After a conflict with another run the step is retried at once, whatever its retry policy. The new attempt loads its
  inputs again, so it continues with the data of the other run.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets.errors import ConcurrentUpdateError, LakeConflictError, TaxiAssetsError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator


CONCURRENT_UPDATE_RETRIES = 3
"""How often a step is retried because another run has replaced its inputs or its output."""
_CONCURRENT_UPDATE_DELAY_SECONDS = 1


@contextmanager
def as_failures(*, retry_number: int = CONCURRENT_UPDATE_RETRIES) -> Iterator[None]:
    """Convert a `TaxiAssetsError` to a `dagster.Failure` with the same text, which gives the problem and the remedy.

    Args:
        retry_number: How many attempts of the step have failed already. By default, no retry is requested.

    Raises:
        dagster.Failure: The block raised a `TaxiAssetsError`.
        dagster.RetryRequested: Another run has replaced inputs or output of the step, and there are retries left.
    """
    try:
        yield
    except (LakeConflictError, ConcurrentUpdateError) as error:
        if retry_number < CONCURRENT_UPDATE_RETRIES:
            raise dg.RetryRequested(
                CONCURRENT_UPDATE_RETRIES, seconds_to_wait=_CONCURRENT_UPDATE_DELAY_SECONDS
            ) from error
        raise _failure(error) from error
    except TaxiAssetsError as error:
        raise _failure(error) from error


def _failure(error: TaxiAssetsError) -> dg.Failure:
    return dg.Failure(str(error), metadata=dict(error.facts), allow_retries=isinstance(error, TransientError))

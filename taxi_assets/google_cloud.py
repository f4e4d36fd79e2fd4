"""Google Cloud: who we are there, the clients, and what its errors mean.

Belongs here: what Cloud Storage and BigQuery have in common. dagster-gcp's resources are the base; they take a key only
by way of a temporary file and an environment variable for the whole process (BigQuery), or not at all (Storage), so
credentials are handed to the clients directly here.
"""

from __future__ import annotations

import base64
import binascii
import json
import weakref
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_gcp import BigQueryResource, GCSResource
from google.api_core import exceptions as api_errors
from google.auth import exceptions as auth_errors
from google.cloud import bigquery, storage
from google.oauth2 import service_account
from pydantic import Field, PrivateAttr
from requests import exceptions as http_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taxi_assets.errors import PermanentError, TransientError

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_CREDENTIALS = Field(
    default=None,
    repr=False,
    description="A service account's key file, or its content in base64; none: application default credentials.",
)
# Said with HTTP 403, but nothing is forbidden; and with 500, but it will not pass.
_QUOTA = {"rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded"}
_TOO_COSTLY = "bytesBilledLimitExceeded"
_NO_CREDENTIALS = "Set TAXI_GOOGLE_CREDENTIALS to a key, or run `gcloud auth application-default login`."


def read_key(text: str) -> dict[str, Any]:
    """The service account's key that a text stands for: a key file's path, or the key itself in base64.

    Raises `ValueError`, which quotes nothing of it.
    """
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        try:
            content = Path(text).expanduser().read_bytes()
        except (OSError, RuntimeError):
            raise ValueError("It is neither the path of a file that can be read, nor base64.") from None
    try:
        key = json.loads(content)
    except ValueError:
        raise ValueError("What it holds is not JSON.") from None
    if not isinstance(key, dict) or key.get("type") != "service_account":
        raise ValueError("What it holds is JSON, but no service account's key.")
    return key


# Credentials remember their token, which takes a while to get; so they are made once a process.
@lru_cache(maxsize=8)
def _credentials(text: str | None) -> Any:
    if text is None:
        return None
    return service_account.Credentials.from_service_account_info(read_key(text), scopes=_SCOPES)  # type: ignore[no-untyped-call]


class CloudStorageResource(GCSResource):
    """Cloud Storage: one client for as long as the resource lives."""

    credentials: str | None = _CREDENTIALS

    _client: Any = PrivateAttr(default=None)

    def get_client(self) -> storage.Client:
        """The client."""
        if self._client is None:
            self._client = storage.Client(project=self.project, credentials=_credentials(self.credentials))
            weakref.finalize(self, self._client.close)
        return self._client


class BigQueryClientResource(BigQueryResource):
    """BigQuery, with a limit on what a query may cost."""

    credentials: str | None = _CREDENTIALS
    maximum_bytes_billed: int = Field(description="A query that would read more is refused before it costs anything.")

    @contextmanager
    def get_client(self) -> Iterator[bigquery.Client]:
        """A client, closed afterwards."""
        limit = bigquery.QueryJobConfig(maximum_bytes_billed=self.maximum_bytes_billed)
        with bigquery.Client(
            project=self.project,
            location=self.location,
            credentials=_credentials(self.credentials),
            default_query_job_config=limit,
        ) as client:
            yield client


@contextmanager
def named_errors(
    what: str,
    *,
    unusable: Callable[..., PermanentError],
    unreachable: Callable[..., TransientError],
    remedy: Callable[[str], str],
) -> Iterator[None]:
    """Turn the errors of Google's clients into ours: one line, with the service's own reason.

    `what` was being done, as in "gs://bucket/key cannot be read"; `remedy` says, given the reason, what allows it.
    """
    try:
        yield
    except auth_errors.DefaultCredentialsError:
        raise unusable(f"{what}: there are no Google credentials.", remedy=_NO_CREDENTIALS) from None
    except (auth_errors.RefreshError, auth_errors.MalformedError, api_errors.Unauthorized) as error:
        raise unusable(
            f"{what}: Google does not accept the credentials ({reason(error)}).", remedy=_NO_CREDENTIALS
        ) from None
    except (auth_errors.TransportError, http_errors.RequestException, ConnectionError, TimeoutError) as error:
        raise unreachable(f"{what}: {reason(error)}.", remedy="Try again later.") from error
    except api_errors.RetryError as error:
        raise unreachable(f"{what}: {reason(error.cause or error)}.", remedy="Try again later.") from error
    except api_errors.GoogleAPICallError as error:
        if _may_pass(error):
            raise unreachable(f"{what}: {reason(error)}.", remedy="Try again later.") from error
        raise unusable(f"{what}: {reason(error)}.", remedy=remedy(reason(error))) from error


def _may_pass(error: api_errors.GoogleAPICallError) -> bool:
    reasons = {entry.get("reason") for entry in error.errors if isinstance(entry, dict)}
    passing = isinstance(error, api_errors.ServerError | api_errors.TooManyRequests)
    return bool(reasons & _QUOTA) or (passing and _TOO_COSTLY not in reasons)


def reason(error: BaseException) -> str:
    """What the service, or the network, said: one line without the URL that the client puts before it."""
    if isinstance(error, api_errors.GoogleAPICallError):
        said = [str(e.get("message", "")) for e in error.errors if isinstance(e, dict)]
        text = next(filter(None, said), str(error.message))
        # Client libraries write "403 GET https://…: the reason".
        head, _, tail = text.partition(": ")
        text = tail if "http://" in head or "https://" in head else text
        text = f"{int(error.code or 0) or ''} {text}"
    elif isinstance(error, http_errors.RequestException):
        text = "the connection broke off or could not be made"
    else:
        text = str(error.args[0]) if error.args else type(error).__name__
    return " ".join(text.split()).rstrip(".")

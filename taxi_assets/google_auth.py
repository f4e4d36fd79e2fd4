"""Google Cloud: who we are there, and what its errors mean.

Belongs here: what all that speaks to Cloud Storage and BigQuery has in common, without Dagster. The resources are in
`google.py`.
"""

from __future__ import annotations

import base64
import json
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.api_core import exceptions as api_errors
from google.auth import exceptions as auth_errors
from google.cloud import storage
from google.oauth2 import service_account
from requests import exceptions as http_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taxi_assets.errors import PermanentError, TransientError

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
TRANSIENT_REASONS = frozenset(
    {
        *("rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "jobRateLimitExceeded"),
        *("backendError", "internalError", "jobBackendError", "jobInternalError", "tableUnavailable"),
    }
)
"""Reasons that may pass, whatever HTTP status they are said with: 403, but nothing is forbidden, or 400."""
# Said with HTTP 500, but it will not pass; and with 200.
_TOO_COSTLY = "bytesBilledLimitExceeded"
_CANCELLED = "stopped"
_NO_CREDENTIALS = "Set TAXI_GOOGLE_CREDENTIALS to a key, or run `gcloud auth application-default login`."


def read_service_account_key(text: str) -> dict[str, Any]:
    """The service account's key that a text stands for: a key file's path, or the key itself in base64.

    Raises `ValueError`, which quotes nothing of it.
    """
    wrong = "What the file holds is not JSON."
    try:
        content = Path(text.strip()).expanduser().read_bytes()
    except (OSError, RuntimeError, ValueError):  # for a path, base64 is too long
        content, wrong = None, "It is neither the path of a file that can be read, nor JSON in base64."
    try:
        key = json.loads(base64.b64decode("".join(text.split()), validate=True) if content is None else content)
    except ValueError:
        raise ValueError(wrong) from None
    if not isinstance(key, dict) or key.get("type") != "service_account":
        raise ValueError("What it holds is JSON, but no service account's key.")
    try:
        _build_credentials(key)
    except ValueError:
        raise ValueError("What it holds is a service account's key with a part missing or damaged.") from None
    return key


# They remember their token, which takes a while to get; so they are made once a process.
@lru_cache(maxsize=8)
def load_credentials(text: str | None) -> Any:
    """Of that key; None, which the clients take for application default credentials, for none.

    Raises google-auth's `DefaultCredentialsError` where it is not a key, or no longer one: settings have looked before.
    """
    if text is None:
        return None
    try:
        return _build_credentials(read_service_account_key(text))
    except ValueError as error:
        missing: Any = auth_errors.DefaultCredentialsError  # it has no types
        raise missing(f"TAXI_GOOGLE_CREDENTIALS: {error}") from None


def _build_credentials(key: dict[str, Any]) -> Any:
    return service_account.Credentials.from_service_account_info(key, scopes=SCOPES)  # type: ignore[no-untyped-call]


@contextmanager
def storage_client(key: str | None) -> Iterator[storage.Client]:
    """A client of Cloud Storage, closed afterwards."""
    client = storage.Client(credentials=load_credentials(key))
    try:
        yield client
    finally:
        client.close()


@contextmanager
def translate_google_errors(
    label: str,
    *,
    permanent: Callable[..., PermanentError],
    transient: Callable[..., TransientError],
    remedy: Callable[[str], str],
) -> Iterator[None]:
    """Turn the errors of Google's clients into ours: one line, with the service's own reason.

    `what` was being done, as in "gs://bucket/key cannot be read"; `remedy` says, given the reason, what allows it.
    """
    try:
        yield
    except auth_errors.DefaultCredentialsError as error:
        raise permanent(
            f"{label}: there are no Google credentials ({describe_google_error(error)}).", remedy=_NO_CREDENTIALS
        ) from None
    except (auth_errors.RefreshError, api_errors.Unauthorized) as error:
        if getattr(error, "retryable", False):
            raise transient(f"{label}: {describe_google_error(error)}.", remedy="Try again later.") from error
        raise permanent(
            f"{label}: Google does not accept the credentials ({describe_google_error(error)}).", remedy=_NO_CREDENTIALS
        ) from None
    except (auth_errors.TransportError, http_errors.RequestException, ConnectionError, TimeoutError) as error:
        raise transient(f"{label}: {describe_google_error(error)}.", remedy="Try again later.") from error
    except api_errors.RetryError as error:
        raise transient(
            f"{label}: {describe_google_error(error.cause or error)}.", remedy="Try again later."
        ) from error
    except api_errors.GoogleAPICallError as error:
        if _is_transient(error):
            raise transient(f"{label}: {describe_google_error(error)}.", remedy="Try again later.") from error
        raise permanent(
            f"{label}: {describe_google_error(error)}.", remedy=remedy(describe_google_error(error))
        ) from error


def _is_transient(error: api_errors.GoogleAPICallError) -> bool:
    reasons = {entry.get("reason") for entry in _error_entries(error)}
    passing = isinstance(error, api_errors.ServerError | api_errors.TooManyRequests)
    return bool(reasons & TRANSIENT_REASONS) or (passing and _TOO_COSTLY not in reasons)


def is_missing_bucket(error: api_errors.NotFound) -> bool:
    """Whether it is the bucket that is missing, not the object."""
    return "specified bucket does not exist" in describe_google_error(error)


def describe_google_error(error: BaseException) -> str:
    """What the service, or the network, said: one line, without what the clients put around it."""
    response = getattr(error, "response", None)
    message = next((str(entry["message"]) for entry in _error_entries(error) if entry.get("message")), None)
    if message is None and response is not None:
        # Proxies say it in HTML.
        message = response.reason if response.text.lstrip().startswith("<") else response.text
    elif message is None and isinstance(error, http_errors.RequestException):
        message = "the connection broke off or could not be made"
    elif message is None:
        message = str(error.args[0]) if error.args else type(error).__name__
    if any(entry.get("reason") == _CANCELLED for entry in _error_entries(error)):
        return f"the job was cancelled ({' '.join(message.split()).rstrip('.')})"
    status = getattr(error, "code", None) or getattr(response, "status_code", None)
    return " ".join(f"{int(status) if status else ''} {message}".split()).rstrip(".")


def _error_entries(error: BaseException) -> list[dict[str, Any]]:
    """The service's own account; that of uploads and downloads is in the response only."""
    errors = getattr(error, "errors", None)
    if not errors:
        try:
            body = error.response.json()["error"]  # type: ignore[attr-defined]  # where there is one
            errors = body.get("errors") or [body]
        except (AttributeError, KeyError, TypeError, ValueError):
            errors = []
    return [entry for entry in errors if isinstance(entry, dict)]

"""Google Cloud: credentials, and the translation of its clients' errors.

Belongs here: code that Cloud Storage and BigQuery share, without Dagster. Dagster's resources are in
`resources/google.py`.
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
"""Error reasons that are transient even with the HTTP status 400 or 403."""
_NETWORK_ERRORS = (auth_errors.TransportError, http_errors.RequestException, ConnectionError, TimeoutError)
# BigQuery sends this reason with HTTP 500, although it is permanent.
_TOO_COSTLY = "bytesBilledLimitExceeded"
# BigQuery sends this reason with HTTP 200.
_CANCELED = "stopped"
WRITE_OBJECTS = "Storage Object User (roles/storage.objectUser)"
READ_OBJECTS = "Storage Object Viewer (roles/storage.objectViewer)"
READ_BUCKET = "Storage Legacy Bucket Reader (roles/storage.legacyBucketReader)"
"""Roles on a bucket. Only the last one has storage.buckets.get, which BigQuery requires to load objects."""
_NO_CREDENTIALS = "Set TAXI_GOOGLE_CREDENTIALS to a key, or run `gcloud auth application-default login`."


def read_service_account_key(text: str) -> dict[str, Any]:
    """Return a service account's key.

    Args:
        text: The path of a key file, or the content of one in base64.

    Raises:
        ValueError: It is not a valid key. The message quotes no part of it.
    """
    not_json = "The file is not JSON."
    try:
        content = Path(text.strip()).expanduser().read_bytes()
    except (OSError, RuntimeError, ValueError):  # base64 is too long for a path
        content, not_json = None, "It is neither the path of a readable file, nor JSON in base64."
    try:
        key = json.loads(base64.b64decode("".join(text.split()), validate=True) if content is None else content)
    except ValueError:
        raise ValueError(not_json) from None
    if not isinstance(key, dict) or key.get("type") != "service_account":
        raise ValueError("It is JSON, but not a service account's key.")
    try:
        _build_credentials(key)
    except ValueError:
        raise ValueError("It is a service account's key, but a part is missing or damaged.") from None
    return key


# Credentials cache their token, which is slow to get: one object per process.
@lru_cache(maxsize=8)
def load_credentials(text: str | None) -> Any:
    """Return credentials for Google's clients.

    Args:
        text: A service account's key, as `read_service_account_key` accepts it. None: application default credentials.

    Returns:
        google-auth's credentials. None for application default credentials: the clients then look for them.

    Raises:
        DefaultCredentialsError: google-auth's error. The key is not valid, for example because its file was deleted
            after the settings were validated.
    """
    if text is None:
        return None
    try:
        return _build_credentials(read_service_account_key(text))
    except ValueError as error:
        missing: Any = auth_errors.DefaultCredentialsError  # google-auth has no type information
        raise missing(f"TAXI_GOOGLE_CREDENTIALS: {error}") from None


def _build_credentials(key: dict[str, Any]) -> Any:
    return service_account.Credentials.from_service_account_info(key, scopes=SCOPES)  # type: ignore[no-untyped-call]


@contextmanager
def storage_client(key: str | None) -> Iterator[storage.Client]:
    """Yield a client of Cloud Storage, and close it afterwards."""
    # Objects need no project. By default, the client searches for one, and fails for credentials that name none.
    client = storage.Client(project=None, credentials=load_credentials(key))
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
    """Translate errors of Google's clients into errors of this package, with the service's message in one line.

    Args:
        label: The failed operation, such as "gs://bucket/key cannot be read"; the error begins with it.
        permanent: Error class for permanent errors, such as missing credentials or permissions.
        transient: Error class for errors that a retry may solve.
        remedy: Returns the remedy of a permanent error, given the service's message.
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
    except _NETWORK_ERRORS as error:
        raise transient(f"{label}: {describe_google_error(error)}.", remedy="Try again later.") from error
    except api_errors.RetryError as error:
        raise transient(
            f"{label}: {describe_google_error(error.cause or error)}.", remedy="Try again later."
        ) from error
    except api_errors.GoogleAPICallError as error:
        if is_transient_error(error):
            raise transient(f"{label}: {describe_google_error(error)}.", remedy="Try again later.") from error
        raise permanent(
            f"{label}: {describe_google_error(error)}.", remedy=remedy(describe_google_error(error))
        ) from error


def is_transient_error(error: BaseException) -> bool:
    """Return whether an error of Google's clients is transient: of the network, the service or a quota."""
    if isinstance(error, _NETWORK_ERRORS):
        return True
    reasons = error_reasons(error)
    has_transient_status = isinstance(error, api_errors.ServerError | api_errors.TooManyRequests)
    return bool(reasons & TRANSIENT_REASONS) or (has_transient_status and _TOO_COSTLY not in reasons)


def error_reasons(error: BaseException) -> set[str]:
    """Return Google's reasons of an error, such as "quotaExceeded"; empty if the service has given none."""
    return {str(entry["reason"]) for entry in _error_entries(error) if entry.get("reason")}


def storage_remedy(message: str, bucket: str, *, objects_role: str) -> str:
    """Return the remedy for a permanent error of Cloud Storage.

    Args:
        message: The service's message, which begins with the HTTP status.
        bucket: The name of the bucket.
        objects_role: The role that grants the permissions on objects.
    """
    if not message.startswith("403"):
        return f"Check the bucket {bucket} in the Google Cloud console."
    role = READ_BUCKET if "storage.buckets.get" in message else objects_role
    return f"Grant the account {role} on the bucket {bucket}."


def is_missing_bucket(error: api_errors.NotFound) -> bool:
    """Return whether the bucket is missing, rather than the object."""
    return "specified bucket does not exist" in describe_google_error(error)


def describe_google_error(error: BaseException) -> str:
    """Return the message of the service or the network in one line, without the text that the clients add."""
    response = getattr(error, "response", None)
    if not hasattr(response, "text"):  # that of a gRPC call
        response = None
    message = next((str(entry["message"]) for entry in _error_entries(error) if entry.get("message")), None)
    if message is None and response is not None:
        # Proxies answer with an HTML page, or with nothing.
        text = response.text.strip()
        message = response.reason if not text or text.startswith("<") else text
    elif message is None and isinstance(error, http_errors.RequestException):
        message = "the connection was interrupted or could not be opened"
    elif message is None:
        message = str(error.args[0]) if error.args else type(error).__name__
    if any(entry.get("reason") == _CANCELED for entry in _error_entries(error)):
        return f"the job was canceled ({' '.join(message.split()).rstrip('.')})"
    status = getattr(error, "code", None) or getattr(response, "status_code", None)
    return " ".join(f"{int(status) if status else ''} {message}".split()).rstrip(".")


def _error_entries(error: BaseException) -> list[dict[str, Any]]:
    """Return the service's error entries. For uploads and downloads they are only in the response."""
    errors = getattr(error, "errors", None)
    if not errors:
        try:
            body = error.response.json()["error"]  # type: ignore[attr-defined]  # not every error has a response
            errors = body.get("errors") or [body]
        except (AttributeError, KeyError, TypeError, ValueError):
            errors = []
    return [entry for entry in errors if isinstance(entry, dict)]

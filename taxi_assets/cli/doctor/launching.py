"""What Dagster's instance names, and loads only once it is used: what starts runs, and where goes what they print.

Does not belong here: whether the instance opens, and its runs (`instance.py`).
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import dagster as dg
import requests

from taxi_assets.cli.doctor.instance import reason
from taxi_assets.dagster_compat import CheckError
from taxi_assets.errors import PermanentError, TaxiAssetsError, TransientError
from taxi_assets.settings import resolve_instance_value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taxi_assets.cli.doctor.check_runner import CheckRunner

_ROLE = (
    "Grant the account roles/storage.objectAdmin and roles/storage.legacyBucketReader on it, or correct compute_logs."
)


def launcher(visit: CheckRunner) -> str:
    """It loads, as the queue does; and Docker answers, where runs are containers."""
    visit.require("DAGSTER_HOME")
    with dg.DagsterInstance.get() as instance:
        with _loading("run_coordinator"):
            queue = type(instance.run_coordinator).__name__
        with _loading("run_launcher"):
            starts = type(instance.run_launcher)
    by = f", Docker {_docker(visit.seconds)}" if starts.__module__.startswith("dagster_docker") else ""
    return f"{starts.__name__}{by}, behind {queue}"


def compute_logs(visit: CheckRunner) -> str:
    """What keeps them loads; one that keeps them in a bucket looks for that."""
    visit.require("DAGSTER_HOME")
    with dg.DagsterInstance.get() as instance:
        named = instance.get_ref().compute_logs_data
        bucket = (
            resolve_instance_value(named.config_dict.get("bucket"))
            if named.module_name.startswith("dagster_gcp")
            else None
        )
        with _loading("compute_logs"), _in_bucket(bucket):
            manager = type(instance.compute_log_manager).__name__
    return f"{manager}, gs://{bucket}" if bucket else manager


@contextmanager
def _loading(key: str) -> Iterator[None]:
    try:
        yield
    except TaxiAssetsError:
        raise
    except Exception as error:  # noqa: BLE001  (Dagster's own, of whatever is loaded)
        label = f"{key} of the instance cannot be used: {reason(error)}."
        raise PermanentError(label, remedy=f"Correct {key} in its dagster.yaml, or install what it names.") from None


@contextmanager
def _in_bucket(bucket: str | None) -> Iterator[None]:
    """Google's errors in our words; Dagster's own, where there is no such bucket, says nothing at all."""
    if bucket is None:
        yield
        return
    from taxi_assets.google_auth import translate_google_errors  # noqa: PLC0415  (Google's clients take a while to load)

    label = f"gs://{bucket}, where what runs print is kept, cannot be used"
    try:
        with translate_google_errors(label, permanent=PermanentError, transient=TransientError, remedy=lambda _: _ROLE):
            yield
    except CheckError as error:
        if "Invariant failed" not in str(error):
            raise
        raise PermanentError(f"{label}: there is no such bucket.", remedy="Make it, or correct compute_logs.") from None


def _docker(seconds: float) -> str:
    """Its version; the launcher finds it by the environment, too."""
    import docker  # type: ignore[import-untyped]  # noqa: PLC0415  (it has no types; whoever has the launcher has it)

    try:
        with closing(docker.from_env(timeout=seconds / 2)) as client:
            return str(client.version()["Version"])
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise TransientError(
            f"Docker, which is to run the runs, does not answer: {_reason(error)}.",
            remedy="Is it running, where DOCKER_HOST says, and may this account use it (DAGSTER_DOCKER_GROUP)?",
        ) from None


def _reason(error: BaseException) -> str:
    """What the system said first."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__

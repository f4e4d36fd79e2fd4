"""Check the parts of Dagster's instance that it loads on first use: run coordinator, run launcher and compute logs.

Does not belong here: opening the instance, and its runs (`instance.py`).
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import dagster as dg
import requests

from taxi_assets.cli.doctor.instance import reason, resolve_instance_value
from taxi_assets.dagster_compat import CheckError
from taxi_assets.errors import PermanentError, TaxiAssetsError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taxi_assets.cli.doctor.check_runner import CheckRunner


def launcher(checks: CheckRunner) -> str:
    """Check that run coordinator and launcher load, and that Docker answers if runs are containers."""
    checks.require("DAGSTER_HOME")
    with dg.DagsterInstance.get() as instance:
        with _translate_loading_errors("run_coordinator"):
            queue = type(instance.run_coordinator).__name__
        with _translate_loading_errors("run_launcher"):
            starts = type(instance.run_launcher)
    by = f", Docker {_docker_version(checks.timeout_seconds)}" if starts.__module__.startswith("dagster_docker") else ""
    return f"{starts.__name__}{by}, behind {queue}"


def compute_logs(checks: CheckRunner) -> str:
    """Check that the compute log manager loads, and that its bucket exists if it uses one."""
    checks.require("DAGSTER_HOME")
    with dg.DagsterInstance.get() as instance:
        named = instance.get_ref().compute_logs_data
        bucket = (
            resolve_instance_value(named.config_dict.get("bucket"))
            if named.module_name.startswith("dagster_gcp")
            else None
        )
        with _translate_loading_errors("compute_logs"), _translate_bucket_errors(bucket):
            manager = type(instance.compute_log_manager).__name__
    return f"{manager}, gs://{bucket}" if bucket else manager


@contextmanager
def _translate_loading_errors(key: str) -> Iterator[None]:
    try:
        yield
    except TaxiAssetsError:
        raise
    except Exception as error:  # noqa: BLE001  (errors of Dagster, or of the class that it loads)
        label = f"{key} of the instance cannot be used: {reason(error)}."
        raise PermanentError(
            label, remedy=f"Correct {key} in its dagster.yaml, or install the package that it names."
        ) from None


@contextmanager
def _translate_bucket_errors(bucket: str | None) -> Iterator[None]:
    """Translate errors of Google's client, and Dagster's error without a text for a bucket that does not exist."""
    if bucket is None:
        yield
        return
    from taxi_assets.google_auth import (  # noqa: PLC0415  (Google's clients take a while to load)
        WRITE_OBJECTS,
        storage_remedy,
        translate_google_errors,
    )

    label = f"gs://{bucket}, the bucket of compute logs, cannot be used"
    try:
        with translate_google_errors(
            label,
            permanent=PermanentError,
            transient=TransientError,
            remedy=lambda message: storage_remedy(message, bucket, objects_role=WRITE_OBJECTS),
        ):
            yield
    except OSError as error:  # of Dagster's client, for credentials that name no project
        if "Project was not passed" not in str(error):
            raise
        raise PermanentError(
            f"{label}: its client needs a project, and the Google credentials name none.",
            remedy="Set GOOGLE_CLOUD_PROJECT to the ID of a project.",
        ) from None
    except CheckError as error:
        if "Invariant failed" not in str(error):
            raise
        raise PermanentError(f"{label}: it does not exist.", remedy="Create it, or correct compute_logs.") from None


def _docker_version(seconds: float) -> str:
    """Return Docker's version. Like the run launcher, this reads Docker's address from the environment."""
    import docker  # type: ignore[import-untyped]  # noqa: PLC0415  (without types; installed with the launcher)

    try:
        with closing(docker.from_env(timeout=seconds / 2)) as client:
            return str(client.version()["Version"])
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise TransientError(
            f"Docker, which runs the containers of runs, does not answer: {_reason(error)}.",
            remedy="Start Docker at DOCKER_HOST, and allow this account to use it (DAGSTER_DOCKER_GROUP).",
        ) from None


def _reason(error: BaseException) -> str:
    """Return the first error of the operating system in the chain of causes."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__

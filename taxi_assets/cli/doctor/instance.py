"""Check Dagster's instance: that it opens, and that no run is marked as started without a process."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import psycopg2
import yaml
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from taxi_assets.automation.outdated_months import outdated_months
from taxi_assets.automation.publication.run_tags import PARTITION_TAG
from taxi_assets.automation.sensors.orphaned_runs import is_lock_held
from taxi_assets.dagster_compat import stores_runs_in_sqlite
from taxi_assets.errors import PermanentError, SettingsError
from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taxi_assets.cli.doctor.check_runner import CheckRunner

_MAX_LISTED = 5
_UNLOADABLE = re.compile(r"Couldn't (?:import|find) .* the configurable class ([\w.]+)")
_UNSET = re.compile(r'environment variable "(\w+)" which is not set')
_FIRST_MISTAKE = re.compile(r"Error 1: ([^.]*)")
_LIBPQ_PROMPT = re.compile(r"\s*Is the server running [^?]*\?")
_PROCESS = re.compile(r"\(pid: (\d+)\)")


def home(_checks: CheckRunner) -> str:
    """Check that DAGSTER_HOME is a writable folder with an instance that opens; return its number of runs."""
    folder = Path(os.environ.get("DAGSTER_HOME", "").strip() or ".").expanduser()
    if not folder.is_absolute():
        raise SettingsError(
            "DAGSTER_HOME is not an absolute path, so the history of runs would be lost.",
            remedy="Set it to the absolute path of a folder. `make` uses data/dagster if it is not set.",
        )
    if not folder.is_dir():
        raise SettingsError(f"{folder} is not a folder.", remedy="Create it, or choose another.")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        label = f"{folder} cannot be written to ({error.strerror})."
        raise SettingsError(label, remedy="Allow this account to write to it, or choose another.") from None
    with _open_instance(folder) as instance:
        engine = type(instance.run_storage).__name__.removesuffix("RunStorage")
        return f"{folder}, {instance.get_runs_count()} runs in {engine}"


@contextmanager
def _open_instance(folder: Path) -> Iterator[dg.DagsterInstance]:
    try:
        with dg.DagsterInstance.get() as instance:
            yield instance
    except Exception as error:  # noqa: BLE001  (errors of Dagster, of its storage or of YAML)
        if variable := _invalid_address_variable(folder):
            remedy = "Write it as postgresql+psycopg2://user:password@host:5432/database."
            raise SettingsError(f"{variable} is not the address of a database.", remedy=remedy) from None
        label = f"The instance in {folder} cannot be opened: {reason(error)}."
        raise PermanentError(label, remedy="Correct its dagster.yaml, or the service that it names.") from None


def _invalid_address_variable(folder: Path) -> str | None:
    """Return the variable with the address of Dagster's storage, if its value is not a valid address."""
    try:
        named = yaml.safe_load((folder / "dagster.yaml").read_text())["storage"]["postgres"]["postgres_url"]
        variable, address = named["env"], resolve_instance_value(named)
    except (OSError, yaml.YAMLError, LookupError, TypeError):
        return None
    try:
        make_url(address).get_dialect()
    except (ArgumentError, ValueError):
        return str(variable) if address else None
    return None


def reason(error: BaseException) -> str:
    """Return the reason of an error on one line, without parts of addresses, which may contain passwords."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, psycopg2.Error):
            message = re.sub(r"\S*@", "…@", " ".join(str(cause).split()))
            return _LIBPQ_PROMPT.sub(";", message).rstrip(";. ")
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"its dagster.yaml is not valid YAML from line {error.problem_mark.line + 1}"
    if unloadable := _UNLOADABLE.search(str(error)):
        return f"it names {unloadable[1]}, which does not exist"
    if unset := _UNSET.search(str(error)):
        return f"{unset[1]} is not set"
    mistake = _FIRST_MISTAKE.search(str(error)) if isinstance(error, dg.DagsterInvalidConfigError) else None
    return mistake[1] if mistake else type(error).__name__


def runs(checks: CheckRunner) -> str:
    """Check that every run that is marked as started has a process; return how many are started."""
    checks.require("DAGSTER_HOME")
    with dg.DagsterInstance.get() as instance:
        started = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        orphaned = [run for run in started if _is_orphaned(instance, run)]
    if orphaned:
        shown = ", ".join(map(_name, orphaned[:_MAX_LISTED]))
        more = f" and {len(orphaned) - _MAX_LISTED} more" if len(orphaned) > _MAX_LISTED else ""
        raise PermanentError(
            f"Marked as started, but their processes are gone: {shown}{more}.",
            remedy="Start the daemon (`make dev`): it marks runs of this machine as failed within a minute. "
            "Terminate the others in the UI.",
        )
    return f"{len(started)} started, all with a process" if started else "none is started"


def outdated(checks: CheckRunner) -> str:
    """Return how many months were built by other rules, columns or code than today's, by service."""
    checks.require("DAGSTER_HOME")
    with dg.DagsterInstance.get() as instance:
        counts = {name: len(outdated_months(instance, service)) for name, service in SERVICES.items()}
    found = ", ".join(f"{count} of {name}" for name, count in counts.items() if count)
    return f"{found}; `make outdated` lists them" if found else "none"


def _name(run: dg.DagsterRun) -> str:
    return " ".join(filter(None, [run.job_name, run.tags.get(PARTITION_TAG), f"(run {run.run_id[:8]})"]))


def _is_orphaned(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Return whether the run's process is known to be gone.

    A running process holds the lock of its run (`automation/sensors/orphaned_runs.py`), except a run started from the
    command line in its own process (`cli/worker_pool.py`). If several machines share the instance, a run without a lock
    may run on another machine.
    """
    held = is_lock_held(instance, run.run_id)
    if held is None:
        return stores_runs_in_sqlite(instance) and not _may_process_be_alive(instance, run)
    return not held


def _may_process_be_alive(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Return whether the process that the run's events name may exist. A run that has just finished counts as alive."""
    message = " ".join(entry.message or entry.user_message for entry in instance.all_logs(run.run_id))
    named = _PROCESS.search(message)
    if named is None:
        return True
    with suppress(PermissionError):
        try:
            os.kill(int(named[1]), 0)
        except ProcessLookupError:
            now = instance.get_run_by_id(run.run_id)
            return now is None or now.is_finished
    return True


def resolve_instance_value(value: object) -> str:
    """Return a value of dagster.yaml; read it from the environment if it is given as `env: VARIABLE`.

    Args:
        value: The value as parsed from YAML: a string, or `{"env": "VARIABLE"}`.

    Returns:
        The value as text; empty if the variable is not set.
    """
    return dg.EnvVar(str(value["env"])).get_value() or "" if isinstance(value, dict) else str(value)

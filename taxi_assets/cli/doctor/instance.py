"""Dagster's instance: whether it opens, and whether runs are marked as started in it that nobody works on."""

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

from taxi_assets.automation.publication.run_tags import PARTITION_TAG
from taxi_assets.automation.sensors.orphaned_runs import is_lock_held
from taxi_assets.dagster_compat import stores_runs_in_sqlite
from taxi_assets.errors import PermanentError, SettingsError
from taxi_assets.settings import resolve_instance_value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taxi_assets.cli.doctor.check_runner import CheckRunner

_MAX_LISTED = 5
_UNLOADABLE = re.compile(r"Couldn't (?:import|find) .* the configurable class ([\w.]+)")
_UNSET = re.compile(r'environment variable "(\w+)" which is not set')
_FIRST_MISTAKE = re.compile(r"Error 1: ([^.]*)")
_LIBPQ_PROMPT = re.compile(r"\s*Is the server running [^?]*\?")
_PROCESS = re.compile(r"\(pid: (\d+)\)")


def home(_visit: CheckRunner) -> str:
    """DAGSTER_HOME is set, can be written to, and holds an instance that opens."""
    folder = Path(os.environ.get("DAGSTER_HOME", "").strip() or ".").expanduser()
    if not folder.is_absolute():
        raise SettingsError(
            "It is not set, or no absolute path: runs would leave no history.",
            remedy="Set it to an absolute folder; make takes data/dagster where it is not set.",
        )
    if not folder.is_dir():
        raise SettingsError(f"{folder} is no folder.", remedy="Make it, or name another.")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        label = f"{folder} cannot be written to ({error.strerror})."
        raise SettingsError(label, remedy="Let this account write to it, or name another.") from None
    with _open_instance(folder) as instance:
        engine = type(instance.run_storage).__name__.removesuffix("RunStorage")
        return f"{folder}, {instance.get_runs_count()} runs in {engine}"


@contextmanager
def _open_instance(folder: Path) -> Iterator[dg.DagsterInstance]:
    try:
        with dg.DagsterInstance.get() as instance:
            yield instance
    except Exception as error:  # noqa: BLE001  (Dagster's own, of its storage, of YAML)
        if variable := _unreadable_address(folder):
            remedy = "Write it as postgresql+psycopg2://user:password@host:5432/database."
            raise SettingsError(f"{variable} is no address of a database.", remedy=remedy) from None
        label = f"The instance in {folder} does not open: {reason(error)}."
        raise PermanentError(label, remedy="Correct its dagster.yaml, or what that names.") from None


def _unreadable_address(folder: Path) -> str | None:
    """The variable that dagster.yaml takes its storage's address from, where that is set but no address."""
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
    """Why, without anything that may be part of an address with a password."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, psycopg2.Error):
            message = re.sub(r"\S*@", "…@", " ".join(str(cause).split()))
            return _LIBPQ_PROMPT.sub(";", message).rstrip(";. ")
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"its dagster.yaml is no YAML from line {error.problem_mark.line + 1} on"
    if unloadable := _UNLOADABLE.search(str(error)):
        return f"it names {unloadable[1]}, which is not there"
    if unset := _UNSET.search(str(error)):
        return f"{unset[1]} is not set"
    mistake = _FIRST_MISTAKE.search(str(error)) if isinstance(error, dg.DagsterInvalidConfigError) else None
    return mistake[1] if mistake else type(error).__name__


def runs(visit: CheckRunner) -> str:
    """None is marked as started that nobody works on."""
    visit.require("DAGSTER_HOME")
    with dg.DagsterInstance.get() as instance:
        started = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        left = [run for run in started if _is_orphaned(instance, run)]
    if left:
        shown = ", ".join(map(_name, left[:_MAX_LISTED]))
        more = f" and {len(left) - _MAX_LISTED} more" if len(left) > _MAX_LISTED else ""
        raise PermanentError(
            f"Marked as started, but nobody works on them: {shown}{more}.",
            remedy="A running daemon (make dev) ends those it knows of within a minute; the UI the others (Terminate).",
        )
    return f"{len(started)} started, none left over" if started else "none is started"


def _name(run: dg.DagsterRun) -> str:
    return " ".join(filter(None, [run.job_name, run.tags.get(PARTITION_TAG), f"(run {run.run_id[:8]})"]))


def _is_orphaned(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether its process is gone, as far as that can be told here.

    While a run works it holds a lock (`automation/sensors/orphaned_runs.py`), unless the command line runs it in a process of its
    own (`cli/worker_pool.py`). Where several machines share the instance, a run without a lock here may be elsewhere.
    """
    held = is_lock_held(instance, run.run_id)
    if held is None:
        return stores_runs_in_sqlite(instance) and not _is_process_alive(instance, run)
    return not held


def _is_process_alive(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether there is a process of the number that the run's events name; unless it says none, or has just ended."""
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

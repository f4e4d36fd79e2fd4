"""A running deployment: Dagster's daemon in its own process, an instance, and a publisher on loopback."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import psutil
import pytest
import tenacity

from taxi_assets_tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from taxi_assets_tests.loopback_publisher import LoopbackPublisher

BIN = Path(sys.executable).parent


def free_port() -> int:
    """Return a free port on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass
class ServiceProcess:
    """A command of a deployment with all processes that it starts, like a container."""

    deployment: Deployment
    arguments: Sequence[str]

    def start(self) -> None:
        """Start the command."""
        self._process = self.deployment.start_command(*self.arguments)

    def kill(self) -> None:
        """Kill the command and its child processes, unless the command has ended; its log then gives the reason."""
        if self._process.poll() is not None:
            return
        parent = psutil.Process(self._process.pid)
        parent.suspend()  # it must not start child processes now
        processes = [parent, *parent.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(120)
        psutil.wait_procs(processes, 120)


@dataclass
class Deployment:
    """A Dagster instance, its environment variables, and the publisher of its files."""

    home: Path
    publisher: LoopbackPublisher
    environment: Mapping[str, str]
    instance: dg.DagsterInstance

    def start_command(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of the virtual environment; its output is appended to a log file."""
        with (self.home / f"{arguments[0]}.log").open("a") as log:
            return subprocess.Popen(
                [BIN / arguments[0], *arguments[1:]],
                cwd=REPOSITORY, env=dict(self.environment), stdout=log, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip

    @contextmanager
    def running_daemon(self) -> Iterator[None]:
        """Run Dagster's daemon, which starts queued runs and evaluates sensors."""
        process = self.start_command("dagster-daemon", "run", "-m", "taxi_assets.definitions")
        try:
            yield
        finally:
            processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            process.send_signal(signal.SIGINT)
            _, alive = psutil.wait_procs(processes, 3)  # the code server would wait for its heartbeat to time out
            for remaining in alive:
                remaining.kill()
            process.wait(120)

    @contextmanager
    def running_service(self, *arguments: str) -> Iterator[ServiceProcess]:
        """Run a command until the context ends. It can be killed and started again."""
        service = ServiceProcess(self, arguments)
        service.start()
        try:
            yield service
        finally:
            service.kill()

    def launch_runs(self, *months: object) -> None:
        """Launch a run of the job `green` for each month; the runs wait in the queue."""
        commands = [
            self.start_command(
                *("dagster", "job", "launch", "-m", "taxi_assets.definitions", "-j", "green"),
                *("--tags", json.dumps({"dagster/partition": str(month)})),
            )
            for month in months
        ]
        assert [command.wait(600) for command in commands] == [0] * len(months), self.read_log("dagster")

    def read_log(self, command: str) -> str:
        """Return the output of all processes of a command so far."""
        return (self.home / f"{command}.log").read_text()

    def runs(self, *statuses: str) -> list[dg.DagsterRun]:
        """Return the runs with one of the statuses, newest first."""
        wanted = [dg.DagsterRunStatus(status) for status in statuses]
        return list(self.instance.get_runs(dg.RunsFilter(statuses=wanted)))

    def event_types(self, run_id: str) -> list[str]:
        """Return the types of a run's events, in order."""
        entries = self.instance.all_logs(run_id)
        return [entry.dagster_event.event_type_value for entry in entries if entry.dagster_event]

    def messages(self, run_id: str) -> str:
        """Return the messages of a run's events, one per line."""
        return "\n".join(entry.message or entry.user_message for entry in self.instance.all_logs(run_id))

    def wait_for_requests(self, number: int) -> None:
        """Wait until the publisher has received this number of requests for files of months."""
        self.wait_until(lambda: len([r for r in self.publisher.requests if r.path.endswith(".csv")]) >= number)

    def wait_until(self, condition: Callable[[], Any], seconds: float = 600) -> Any:
        """Wait until the condition is true; return its value. Fail the test after `seconds`."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda result: not result),
            wait=tenacity.wait_fixed(0.1),
            stop=tenacity.stop_after_delay(seconds),
            retry_error_callback=lambda _: pytest.fail(
                f"the condition is still not true:\n{self.read_log('dagster-daemon')}"
            ),
        )
        return retrying(condition)

    def kill_run_process(self, run_id: str) -> None:
        """Kill the process that executes a run."""
        (pid,) = set(re.findall(r"Executing steps in process \(pid: (\d+)\)", self.messages(run_id)))
        os.kill(int(pid), signal.SIGKILL)

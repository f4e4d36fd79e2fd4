"""A deployment that really runs: Dagster's daemon in a process of its own, an instance, and a publisher on loopback."""

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
    """A port on loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass
class ServiceProcess:
    """A command of a deployment, with all processes that it makes: what a container would be."""

    deployment: Deployment
    arguments: Sequence[str]

    def start(self) -> None:
        self._process = self.deployment.start_command(*self.arguments)

    def kill(self) -> None:
        """End all its processes by force, unless it has ended already: then its log says why."""
        if self._process.poll() is not None:
            return
        head = psutil.Process(self._process.pid)
        head.suspend()  # it must make no new ones now
        family = [head, *head.children(recursive=True)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        self._process.wait(20)
        psutil.wait_procs(family, 20)


@dataclass
class Deployment:
    """An instance, and who publishes to it."""

    home: Path
    publisher: LoopbackPublisher
    environment: Mapping[str, str]
    instance: dg.DagsterInstance

    def start_command(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of the environment, its output in a file."""
        with (self.home / f"{arguments[0]}.log").open("a") as log:
            return subprocess.Popen(
                [BIN / arguments[0], *arguments[1:]],
                cwd=REPOSITORY, env=dict(self.environment), stdout=log, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip

    @contextmanager
    def running_daemon(self) -> Iterator[None]:
        """Dagster's daemon: it takes runs from the queue, and evaluates sensors."""
        process = self.start_command("dagster-daemon", "run", "-m", "taxi_assets.definitions")
        try:
            yield
        finally:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            process.send_signal(signal.SIGINT)
            _, left = psutil.wait_procs(family, 3)  # its code server would wait for its heartbeat to end
            for member in left:
                member.kill()
            process.wait(20)

    @contextmanager
    def running_service(self, *arguments: str) -> Iterator[ServiceProcess]:
        """A command that goes on until it is ended; it can be killed and started again."""
        service = ServiceProcess(self, arguments)
        service.start()
        try:
            yield service
        finally:
            service.kill()

    def launch_runs(self, *months: object) -> None:
        """Hand months to the queue."""
        commands = [
            self.start_command(
                *("dagster", "job", "launch", "-m", "taxi_assets.definitions", "-j", "green"),
                *("--tags", json.dumps({"dagster/partition": str(month)})),
            )
            for month in months
        ]
        assert [command.wait(180) for command in commands] == [0] * len(months), self.read_log("dagster")

    def read_log(self, command: str) -> str:
        return (self.home / f"{command}.log").read_text()

    def runs(self, *statuses: str) -> list[dg.DagsterRun]:
        """The newest first."""
        wanted = [dg.DagsterRunStatus(status) for status in statuses]
        return list(self.instance.get_runs(dg.RunsFilter(statuses=wanted)))

    def event_types(self, run_id: str) -> list[str]:
        """The types of a run's events."""
        entries = self.instance.all_logs(run_id)
        return [entry.dagster_event.event_type_value for entry in entries if entry.dagster_event]

    def messages(self, run_id: str) -> str:
        """What a run's events say."""
        return "\n".join(entry.message or entry.user_message for entry in self.instance.all_logs(run_id))

    def wait_for_requests(self, number: int) -> None:
        """Until so many requests for a month's file have arrived."""
        self.wait_until(lambda: len([r for r in self.publisher.requests if r.path.endswith(".csv")]) >= number)

    def wait_until(self, condition: Callable[[], Any], seconds: float = 120) -> Any:
        """What the condition gives, once it gives anything."""
        trying = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda result: not result),
            wait=tenacity.wait_fixed(0.1),
            stop=tenacity.stop_after_delay(seconds),
            retry_error_callback=lambda _: pytest.fail(f"waited in vain:\n{self.read_log('dagster-daemon')}"),
        )
        return trying(condition)

    def kill_run_process(self, run_id: str) -> None:
        """End the process that works on a run by force."""
        (pid,) = set(re.findall(r"Executing steps in process \(pid: (\d+)\)", self.messages(run_id)))
        os.kill(int(pid), signal.SIGKILL)

"""`deploy/gcp/verify.sh` on test doubles of Google Cloud: it reports what held, and removes only what it created."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from google.api_core.exceptions import Conflict

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.google.bigquery import BigQuery
from taxi_assets_tests.google.cloud_storage import CloudStorage
from taxi_assets_tests.google.service_account import ServiceAccount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

SCRIPT = REPOSITORY / "deploy" / "gcp" / "verify.sh"
# google-auth asks Google in the background where a token is valid: see google/service_account.py.
NO_QUESTIONS = "import taxi_assets_tests.google.service_account\n"


class Cloud:
    """The doubles, and the resources that were there before."""

    def __init__(self, stack: ExitStack) -> None:
        self.account = stack.enter_context(ServiceAccount())
        self.storage = stack.enter_context(CloudStorage())
        self.bigquery = stack.enter_context(BigQuery(storage_endpoint=self.storage.endpoint, project="taxi-project"))
        self.bigquery.catalog.insert_dataset({"datasetReference": {"datasetId": "of_others"}, "location": "EU"})
        self.storage.put("of-others", b"content")
        self.before = self.resources()

    @property
    def environment(self) -> dict[str, str]:
        return self.storage.environment | self.bigquery.environment

    def resources(self) -> tuple[list[str], dict[str, int], list[str]]:
        return self.storage.buckets(), self.storage.objects(), sorted(self.bigquery.catalog.datasets)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with ExitStack() as stack:
        yield Cloud(stack)


@pytest.fixture
def environment(cloud: Cloud, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "sitecustomize.py").write_text(NO_QUESTIONS)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": f"{tmp_path}:{REPOSITORY}",
        "PROJECT": "taxi-project",
        "TAXI_GOOGLE_CREDENTIALS": cloud.account.base64,
        "TAXI_NOTIFY_URLS": "not a setting that is passed on",
        # The contract tests would take minutes. Other tests run them on the doubles.
        "PYTEST_ADDOPTS": "--collect-only",
        **cloud.environment,
    }


def results(output: str) -> dict[str, str]:
    """Return the result of each step, from the table."""
    return dict(re.findall(r"^([a-z-]+) +(held|failed) +\d", output, flags=re.MULTILINE))


@pytest.mark.timeout(3600)
def test_everything_holds_on_the_doubles_except_pruning_and_nothing_is_left(
    cloud: Cloud, environment: Mapping[str, str], tmp_path: Path
) -> None:
    ended = subprocess.run(["bash", SCRIPT], env=environment, capture_output=True, text=True, check=False, timeout=3000)
    logs = "\n".join(file.read_text()[-3000:] for file in sorted(tmp_path.glob("taxi-verify-*/*.log")))
    # The double bills a query for whole tables.
    assert results(ended.stdout) == {
        name: "failed" if name == "pruning" else "held" for name in verify_module().STEPS
    }, ended.stdout + ended.stderr + logs
    assert ended.returncode == 1
    assert "12 of 12 runs succeeded" in logs
    assert re.search(r"^cost: \d+ jobs; [\d,]+ MiB billed for queries, 0\.\d+ US dollars", ended.stdout, re.MULTILINE)
    assert cloud.resources() == cloud.before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_ends_the_step_and_removes_everything(
    cloud: Cloud, environment: Mapping[str, str], number: int, code: int
) -> None:
    with subprocess.Popen(["bash", SCRIPT], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("doctor"):
                break
        assert cloud.resources() != cloud.before
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        output = process.stdout.read()
    assert process.returncode == code
    assert output.count("removed ") == 3
    assert cloud.resources() == cloud.before
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def test_without_a_project_nothing_is_created(cloud: Cloud, environment: dict[str, str]) -> None:
    del environment["PROJECT"]
    refused = subprocess.run(["bash", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "PROJECT: the ID of a project for tests" in refused.stderr
    assert cloud.storage.requests == []


# --- in this process --------------------------------------------------------------------------------------------------


def verify_module() -> Any:
    """Import verify.py, which is not in a package."""
    spec = importlib.util.spec_from_file_location("verify_google", SCRIPT.with_suffix(".py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def verify(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in cloud.environment.items():
        monkeypatch.setenv(name, value)
    return verify_module()


def run_steps(
    verify: Any, cloud: Cloud, logs: Path, steps: Mapping[str, Callable[[Any], str]], suffix: str = "0a1b2c3d"
) -> bool:
    verify.STEPS = steps
    return bool(verify.verify(verify.Verification("taxi-project", "EU", logs, cloud.account.base64, suffix)))


def test_a_failed_step_is_in_the_table_and_later_steps_run(
    verify: Any, cloud: Cloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(run: Any) -> str:
        return str(run.run("fail", "taxi_assets.cli.backfill", "no-such-command"))

    steps = {"fail": fail, "messages": verify.messages, "other-location": verify.other_location}
    assert not run_steps(verify, cloud, tmp_path, steps)
    output = capsys.readouterr().out
    assert results(output) == {"fail": "failed", "messages": "held", "other-location": "held"}
    assert "refused: us-west1 for EU" in output
    assert "No such command" in (tmp_path / "fail.log").read_text()
    assert cloud.resources() == cloud.before


def test_datasets_of_killed_contract_tests_are_removed(verify: Any, cloud: Cloud, tmp_path: Path) -> None:
    def leave_datasets(run: Any) -> str:
        for name in (f"{run.test_datasets}_1", f"{run.test_datasets}_2"):
            run.tables.create_dataset(name)
        return "left"

    assert run_steps(verify, cloud, tmp_path, {"leave": leave_datasets})
    assert cloud.resources() == cloud.before


def test_a_bucket_of_the_same_name_is_not_touched(verify: Any, cloud: Cloud, tmp_path: Path) -> None:
    run = verify.Verification("taxi-project", "EU", tmp_path, cloud.account.base64, "taken")
    run.objects.create_bucket(run.other_bucket)
    run.objects.bucket(run.other_bucket).blob("of-others").upload_from_string("content")
    with pytest.raises(Conflict):
        run_steps(verify, cloud, tmp_path, {}, suffix="taken")
    assert [blob.name for blob in run.objects.list_blobs(run.other_bucket)] == ["of-others"]
    assert cloud.storage.buckets() == sorted([cloud.storage.bucket, run.other_bucket])


def test_the_cost_is_unknown_without_permission_to_list_jobs_and_everything_is_removed(
    verify: Any, cloud: Cloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.bigquery.forbid("bigquery.jobs.list")
    assert run_steps(verify, cloud, tmp_path, {})
    assert "cost: unknown (403 Access Denied" in capsys.readouterr().out
    assert cloud.resources() == cloud.before

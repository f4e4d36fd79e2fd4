"""Injection: names and texts that contain code, paths or markup are refused or quoted, and files stay in the lake.

Keys of a lake are in `contract/test_any_lake.py`, addresses in `unit/test_addresses.py` and `unit/test_settings.py`,
Markdown cells in `unit/test_metadata.py`, pages in `unit/reports/test_page.py`, SQL of marts in
`unit/marts/test_sql_rendering.py`.
"""

from __future__ import annotations

import logging
import re
import shutil
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
import pytest

from taxi_assets.errors import NotPublishedError, TaxiAssetsError
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.sources.download import DownloadedFile, RetrySettings, download
from taxi_assets.tlc.sources.source_record import SourceUrl
from taxi_assets_tests.html_pages import HtmlPage
from taxi_assets_tests.loopback_publisher import Answer, LoopbackPublisher
from taxi_assets_tests.pipeline_harness import Deployment, failure_messages, materializations
from taxi_assets_tests.trips import MONTH, csv_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = f"green_tripdata_{MONTH}.csv"
LINES = list(csv_lines(MONTH, 200))
HOSTILE = [
    "'; DROP TABLE taxi.green_trips; --",
    'x" OR 1=1 --',
    "../../../../tmp/outside",
    "..",
    "2020-10/../../../outside",
    "2020-10'",
    "2020-10\n",
    "2020-10\x00",
    "2020-10%0a",
    " 2020-10",
    "\uff12\uff10\uff12\uff10-\uff11\uff10",
    "2020-13",
    "-1",
    "",
    "$(touch outside)",
    "{{ 7 * 7 }}",
    "*",
    "2020-10,2020-11",
    "2020-10...2020-12",
]
MARKUP = "<script>alert(1)</script>|`x`[a](javascript:alert(1))![i](http://t/x.png)'\"; DROP TABLE x"


def all_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / NAME).write_text("\n".join(LINES) + "\n")
    return folder


# --- partition keys and run config ------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["partition_key", "tag"])
def test_an_invalid_month_runs_nothing_and_writes_nothing(
    tmp_path: Path, published: Path, by: str, record_property: Callable[[str, object], None]
) -> None:
    deployment = Deployment(tmp_path / "home", str(published))
    job = deployment.definitions().resolve_job_def("green")
    before = all_files(tmp_path)
    tried = HOSTILE if by == "partition_key" else HOSTILE[::3]
    for key in tried:
        arguments: dict[str, Any] = (
            {"partition_key": key} if by == "partition_key" else {"tags": {"dagster/partition": key}}
        )
        with dg.DagsterInstance.ephemeral() as instance, pytest.raises((dg.DagsterError, ValueError)):
            job.execute_in_process(instance=instance, **arguments)
    assert all_files(tmp_path) == before
    record_property("hostile names", len(tried))


def test_an_invalid_rule_starts_no_run(
    tmp_path: Path, published: Path, record_property: Callable[[str, object], None]
) -> None:
    deployment = Deployment(tmp_path / "home", str(published))
    job = deployment.definitions().resolve_job_def("green")
    before = all_files(tmp_path)
    for name in [*HOSTILE, MARKUP]:
        config = {"ops": {"clean_green": {"config": {"rules": [name]}}}}
        with (
            dg.DagsterInstance.ephemeral() as instance,
            pytest.raises(dg.DagsterInvalidConfigError, match="not in enum type green_rule"),
        ):
            job.execute_in_process(instance=instance, partition_key=str(MONTH), run_config=config)
    assert all_files(tmp_path) == before
    record_property("hostile names", len(HOSTILE) + 1)


# --- names of folders and files ---------------------------------------------------------------------------------------

FOLDERS = ['it\'s a "b"', "semi;colon -- {x}", "new\nline $(touch outside)", "* per%20cent zürich ☂", "#q?a=b"]


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_of_lake_warehouse_and_source_may_have_any_name(tmp_path: Path, published: Path, name: str) -> None:
    home, source = tmp_path / name, tmp_path / f"source {name}"
    shutil.copytree(published, source)
    # The warehouse is an address, which cannot contain these characters. Lake and source are paths.
    deployment = Deployment(home, str(source))
    if set(name) & set("?#"):
        with pytest.raises(ValueError, match="Use duckdb"):
            deployment.definitions()
        return
    result = deployment.run("green", str(MONTH))
    assert failure_messages(result) == []
    with duckdb.connect(str(deployment.warehouse), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM taxi.green_trips").fetchall() == [(200,)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"source {name}", "published"])
    assert not list(tmp_path.rglob("outside"))


def quoted(text: str) -> str:
    """Quote a field as in CSV."""
    return '"{}"'.format(text.replace('"', '""'))


# --- data -------------------------------------------------------------------------------------------------------------


def test_column_names_values_and_zones_stay_text_in_every_layer_and_report(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    markup = MARKUP.replace(",", "")
    header, *rows = LINES
    bad = rows[0].replace(",N,", f",{markup},")
    assert bad != rows[0]
    table = [f"{header},{markup}", *(f"{row},{markup}" for row in [*rows, bad])]
    (folder / NAME).write_text("\n".join(table) + "\n")
    zones = "".join(f"{zone},{quoted(MARKUP)},{quoted(markup)},x\n" for zone in range(1, 266))
    (folder / "taxi_zone_lookup.csv").write_text(f"LocationID,Borough,Zone,service_zone\n{zones}")
    deployment = Deployment(tmp_path / "home", str(folder))
    definitions = deployment.definitions()
    with dg.DagsterInstance.ephemeral() as instance:
        reference = definitions.resolve_job_def("reference").execute_in_process(instance=instance, raise_on_error=False)
        assert failure_messages(reference) == []
        result = deployment.run("green", str(MONTH), instance=instance)
        assert failure_messages(result) == []
        report = deployment.run_report("green", str(MONTH))
        assert failure_messages(report) == []

    with duckdb.connect(str(deployment.warehouse), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM taxi.green_trips").fetchall() == [(200,)]
        assert connection.execute("SELECT DISTINCT borough, zone FROM taxi.taxi_zones").fetchall() == [(MARKUP, markup)]
    markdown = [
        value.md_str or ""
        for run in (reference, result, report)
        for event in materializations(run).values()
        for value in event.metadata.values()
        if isinstance(value, dg.MarkdownMetadataValue)
    ]
    assert any("alert" in text for text in markdown)
    for text in markdown:
        assert re.search(r"(?<!\\)(<script|\[a\]|`x|!\[i)", text) is None
    (page,) = deployment.lake.rglob("*.html")
    read = HtmlPage(page.read_text())
    assert read.loaded_urls == []
    assert read.event_handlers == []
    assert "script" not in read.tag_names
    assert "&lt;script&gt;alert(1)" in page.read_text()
    record_property("hostile names", 3)


# --- publishers -------------------------------------------------------------------------------------------------------

NO_RETRY = RetrySettings(attempts=1, first_wait_seconds=0, max_wait_seconds=0)


def get(url: str, output_dir: Path) -> Path:
    output_dir.mkdir()
    candidate = SourceUrl(url, "test", FileFormat.CSV)
    fetched = download(
        "green 2020-10", [candidate], known=None, output_dir=output_dir, log=logging.getLogger("x"), retry=NO_RETRY
    )
    assert isinstance(fetched, DownloadedFile)
    return fetched.path


def test_a_server_cannot_choose_where_a_file_is_stored(tmp_path: Path) -> None:
    content = ("\n".join(LINES) + "\n").encode()
    with LoopbackPublisher({NAME: content}) as publisher:
        publisher.script(
            NAME,
            Answer(
                headers={
                    "Content-Disposition": 'attachment; filename="../../outside"',
                    "Content-Location": "/../../outside",
                    "ETag": f'"{MARKUP}"',
                }
            ),
        )
        path = get(publisher.url(NAME), tmp_path / "output")
    assert path == tmp_path / "output" / "download.csv"
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["download.csv"]


@pytest.mark.parametrize("url", ["/x\r\nX-Evil: yes", "/x\nX-Evil: yes", "/x HTTP/1.1\r\nHost: evil\r\n\r\n"])
def test_an_address_cannot_add_a_line_to_a_request(tmp_path: Path, url: str) -> None:
    with LoopbackPublisher({NAME: b"x"}) as publisher:
        with pytest.raises(TaxiAssetsError) as error:
            get(publisher.base + url, tmp_path / "output")
        assert "\n" not in str(error.value)
        for request in publisher.requests:
            assert "X-Evil" not in request.headers
            assert request.headers["Host"] == f"127.0.0.1:{publisher.port}"


@pytest.mark.parametrize("target", ["file:///etc/passwd", "//etc/passwd:99999/", "ftp://127.0.0.1/x", "http://[bad"])
def test_a_redirect_leads_only_to_http_or_https(tmp_path: Path, target: str) -> None:
    with LoopbackPublisher({NAME: b"x"}) as publisher:
        publisher.script(NAME, then=Answer(redirect=target))
        with pytest.raises(TaxiAssetsError, match=r"^green 2020-10 could not be fetched from [^\n]*$"):
            get(publisher.url(NAME), tmp_path / "output")
    assert list((tmp_path / "output").iterdir()) == []


def test_an_error_page_is_quoted_in_one_line_without_control_characters(tmp_path: Path) -> None:
    page = f"<html><title>\x1b[31mred\x07\r\n{MARKUP}\u202e&#27;[2J</title></html>".encode()
    with LoopbackPublisher({NAME: page}) as publisher, pytest.raises(NotPublishedError) as error:
        get(publisher.url(NAME), tmp_path / "output")
    assert str(error.value).isprintable()
    assert "[31mred" in str(error.value)

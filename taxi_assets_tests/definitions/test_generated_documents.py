"""The generated documents are current and complete."""

from __future__ import annotations

import re

import pytest

from taxi_assets.build import build_definitions
from taxi_assets.cli.docgen.__main__ import documents
from taxi_assets.cli.docgen.graph import graph
from taxi_assets.settings import Settings, variable_of
from taxi_assets_tests.conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
GENERATED = documents(DOCS)
DEFINITIONS = build_definitions(Settings())
GRAPH = DEFINITIONS.resolve_asset_graph()
DRAWN = graph(DEFINITIONS)


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_document_is_current(name: str) -> None:
    assert (DOCS / name).read_text() == GENERATED[name], "run `make docs`"


def test_every_setting_is_described() -> None:
    rows = dict(re.findall(r"^\| `(TAXI_[\w<>]+)` +\|[^|]*\| (.+) \|$", GENERATED["settings.md"], re.MULTILINE))
    assert set(rows) == set(map(variable_of, Settings.model_fields))
    assert all(meaning.endswith(".") for meaning in rows.values())


def test_no_secret_of_the_environment_gets_into_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_NOTIFY_URLS", "json://quite-secret.example.com")
    monkeypatch.setenv("TAXI_LAKE", "./elsewhere")
    assert documents(DOCS) == GENERATED


def test_every_asset_and_check_is_in_the_asset_catalog() -> None:
    rows = dict(re.findall(r"^\| `([\w/]+)` +\| ([^|]*[^| ]) +\|", GENERATED["assets.md"], re.MULTILINE))
    wanted = {key.to_user_string() for key in GRAPH.get_all_asset_keys()} | {k.name for k in GRAPH.asset_check_keys}
    assert set(rows) == wanted


def test_the_graph_shows_every_asset_once_in_its_group() -> None:
    boxes = [
        (group, label)
        for group, members in re.findall(r"^  subgraph (\w+)\n(.*?)^  end$", DRAWN, re.MULTILINE | re.DOTALL)
        for label in re.findall(r'\["(.*)"\]', members)
    ]
    assert sorted(boxes) == sorted((node.group_name, node.key.to_user_string()) for node in GRAPH.asset_nodes)


def test_the_graph_has_an_edge_for_each_dependency_that_others_do_not_imply() -> None:
    drawn = {
        (parent, child)
        for parents, child in re.findall(r"^  (.+) --> (\w+)$", DRAWN, re.MULTILINE)
        for parent in parents.split(" & ")
    }
    edges = {("_".join(key.path), "_".join(node.key.path)) for node in GRAPH.asset_nodes for key in node.parent_keys}
    # The edges through the warehouse imply those from the clean trips to the reports, and the edges through the clean
    # trips those from the raw files to the revisions. The edges through the marts and
    # the quality table imply those from the clean trips and the taxi zones to the views.
    services = [key.path[1] for key in GRAPH.get_all_asset_keys() if key.path[0] == "reports"]
    implied = {(f"clean_{service}", child) for service in services for child in (f"reports_{service}", "views_duckdb")}
    implied |= {(f"raw_{service}", f"revisions_{service}") for service in services}
    assert drawn == edges - implied - {("reference_taxi_zones", "views_duckdb")}


@pytest.mark.parametrize("page", ["README.md", "docs/assets.md"])
def test_a_page_shows_the_graph(page: str) -> None:
    assert f"```mermaid\n{DRAWN}```" in (REPOSITORY / page).read_text()

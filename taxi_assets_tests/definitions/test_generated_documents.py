"""The generated documents are current and complete."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from taxi_assets.build import build_definitions
from taxi_assets.cli.docgen.__main__ import documents
from taxi_assets.settings import Settings, variable_of
from taxi_assets_tests.conftest import REPOSITORY

SVG = "{http://www.w3.org/2000/svg}"
GENERATED = documents()
GRAPH = build_definitions(Settings()).resolve_asset_graph()


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_document_is_current(name: str) -> None:
    assert (REPOSITORY / "docs" / name).read_text() == GENERATED[name], "run `make docs`"


def test_every_setting_is_described() -> None:
    rows = dict(re.findall(r"^\| `(TAXI_[\w<>]+)` +\|[^|]*\| (.+) \|$", GENERATED["settings.md"], re.MULTILINE))
    assert set(rows) == set(map(variable_of, Settings.model_fields))
    assert all(meaning.endswith(".") for meaning in rows.values())


def test_no_secret_of_the_environment_gets_into_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_NOTIFY_URLS", "json://quite-secret.example.com")
    monkeypatch.setenv("TAXI_LAKE", "./elsewhere")
    assert documents() == GENERATED


def test_every_asset_and_check_is_in_the_asset_catalog() -> None:
    rows = dict(re.findall(r"^\| `([\w/]+)` +\| ([^|]*[^| ]) +\|", GENERATED["assets.md"], re.MULTILINE))
    wanted = {key.to_user_string() for key in GRAPH.get_all_asset_keys()} | {k.name for k in GRAPH.asset_check_keys}
    assert set(rows) == wanted


def test_the_graph_shows_every_asset_once_without_overlaps() -> None:
    keys = {key.to_user_string() for key in GRAPH.get_all_asset_keys()}
    drawn = ET.fromstring(GENERATED["images/graph.svg"])  # noqa: S314  (our own)
    texts = [text.text for text in drawn.iter(f"{SVG}text")]
    assert sorted(filter(None, texts)) == sorted(keys)
    boxes = [
        [float(box.attrib[name]) for name in ("x", "y", "width", "height")]
        for box in list(drawn.iter(f"{SVG}rect"))[1:]
    ]
    assert len(boxes) == len(keys)
    for i, (x, y, width, height) in enumerate(boxes):
        for other_x, other_y, *_ in boxes[:i]:
            assert abs(x - other_x) >= width or abs(y - other_y) >= height


def test_the_graph_has_an_edge_for_each_dependency_that_others_do_not_imply() -> None:
    edges = sum(len(node.parent_keys) for node in GRAPH.asset_nodes)
    services = len({key for key in GRAPH.get_all_asset_keys() if key.path[0] == "reports"})
    # The edges through the warehouse imply those from the clean trips to the reports. The edges through the marts and
    # the quality table imply those from the clean trips and the taxi zones to the views.
    assert GENERATED["images/graph.svg"].count("<path ") == edges - services - (services + 1)

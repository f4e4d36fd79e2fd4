"""`make docs`: write the generated pages into a folder."""

from __future__ import annotations

import sys
from pathlib import Path

from taxi_assets.build import build_definitions
from taxi_assets.cli.docgen.asset_catalog import asset_catalog
from taxi_assets.cli.docgen.data_dictionary import data_dictionary
from taxi_assets.cli.docgen.graph import graph
from taxi_assets.cli.docgen.settings_table import settings
from taxi_assets.settings import Settings


def documents() -> dict[str, str]:
    """Return the content of each generated page, by its path in docs/."""
    definitions = build_definitions(Settings.from_env())
    return {
        "assets.md": asset_catalog(definitions),
        "data-dictionary.md": data_dictionary(),
        "images/graph.svg": graph(definitions),
        "settings.md": settings(),
    }


if __name__ == "__main__":
    for name, text in documents().items():
        path = Path(sys.argv[1]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

"""`make docs`: write the generated pages into a folder."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from taxi_assets.build import build_definitions
from taxi_assets.cli.docgen.asset_catalog import asset_catalog
from taxi_assets.cli.docgen.data_dictionary import data_dictionary
from taxi_assets.cli.docgen.graph import graph
from taxi_assets.cli.docgen.settings_table import settings
from taxi_assets.settings import Settings

_GRAPH = re.compile(r"^```mermaid$.*?^```$", re.MULTILINE | re.DOTALL)


def documents(docs: Path) -> dict[str, str]:
    """Return the content of each generated page, and of README.md with the current graph, by its path in docs/."""
    definitions = build_definitions(Settings.from_env())
    readme = "../README.md"
    return {
        readme: _GRAPH.sub(f"```mermaid\n{graph(definitions)}```", (docs / readme).read_text()),
        "assets.md": asset_catalog(definitions),
        "data-dictionary.md": data_dictionary(),
        "settings.md": settings(),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name, text in documents(folder).items():
        (folder / name).write_text(text)

"""The settings, as Markdown, from the model that reads them."""

from __future__ import annotations

from taxi_assets.cli.docgen import table
from taxi_assets.settings import Settings

_HEAD = """# Settings

Written by `make docs` from `taxi_assets/settings.py`; do not edit.

All of them are environment variables; none has to be set. What is not accepted is said in one line before anything
runs, and `make doctor` says what the environment means. `PROFILE=gcp` after `make dev`, `make backfill` or
`make doctor` takes what the environment does not say from [deploy/profiles](../deploy/profiles). Any lake goes with any
warehouse: [Google Cloud](google-cloud.md), [Postgres](postgres.md); containers have [variables of their
own](docker.md#settings).
"""

_TAIL = """
A folder, a web server or a bucket holds files under TLC's names, such as `green_tripdata_2021-01.parquet`; `.csv.gz`,
`.csv` and `.parquet` are looked for, in that order.

Not of this project, but read: `DAGSTER_HOME`, where Dagster keeps its history (make takes `data/dagster`); `PGPASSWORD`
and what else libpq knows; `GOOGLE_APPLICATION_CREDENTIALS`.
"""


def settings() -> str:
    """The whole document."""
    rows = [
        (f"`TAXI_{name.upper()}`", _default(field.default), " ".join((field.description or "").split()))
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join([_HEAD, table(["variable", "default", "meaning"], rows), _TAIL])


def _default(value: object) -> str:
    shown = str(value).lower() if isinstance(value, bool) else value
    return "" if value is None else f"`{shown}`"

"""Check the Iceberg catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets.build import build_stores
from taxi_assets.storage.iceberg.iceberg_catalog import translate_catalog_errors
from taxi_assets.storage.iceberg.iceberg_names import NAMESPACE

if TYPE_CHECKING:
    from taxi_assets.cli.doctor.check_runner import CheckRunner


def catalog(checks: CheckRunner) -> str:
    """Check that the catalog can be opened; return the number of tables in it."""
    settings = checks.settings()
    if settings.catalog is None:
        return "none: TAXI_CATALOG is not set"
    checks.require("lake")
    stores = build_stores(settings)
    with dg.build_resources({"catalog": stores["catalog"]}) as resources:  # resolves the variable of the key
        if resources.catalog.file is not None and not resources.catalog.file.exists():
            return f"{settings.catalog}: does not exist yet; the first run creates it"
        opened = resources.catalog.open()
        with translate_catalog_errors(f"The namespace {NAMESPACE} cannot be listed"):
            count = len(opened.list_tables(NAMESPACE)) if opened.namespace_exists(NAMESPACE) else 0
    return f"{settings.catalog}: has {count} tables in the namespace {NAMESPACE}"

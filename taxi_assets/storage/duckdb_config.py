"""Options of every DuckDB connection that this package opens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_EXTENSIONS: Mapping[str, Any] = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
"""DuckDB neither downloads an extension nor loads an installed one, unless a query says INSTALL or LOAD."""

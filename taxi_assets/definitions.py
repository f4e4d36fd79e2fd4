"""The code location that Dagster loads: the deployment that the environment describes, and your own definitions."""

import gc
import sys
import warnings
from pathlib import Path
from types import ModuleType

# Objects that imports create live as long as the process. Without a collection during the imports, and with these
# objects frozen, the garbage collector does not scan them during a run or at exit: a fifth of a run's CPU time.
# DuckDB must not be frozen, because it reports leaks if its objects are not collected at exit.
gc_was_enabled = gc.isenabled()
gc.disable()

import dagster as dg  # noqa: E402

from taxi_assets import defs as defs_package  # noqa: E402
from taxi_assets.build import build_definitions, merge_definitions  # noqa: E402
from taxi_assets.settings import Settings  # noqa: E402

if "duckdb" not in sys.modules:
    gc.freeze()
if gc_was_enabled:
    gc.enable()

# Dagster marks functions that its own loader calls as preview.
warnings.filterwarnings("ignore", message="Function `load_definitions_from_modules?` is currently in preview")


def load_package(package: ModuleType) -> dg.Definitions:
    """Return the definitions in the modules of a package, and the components in its `defs.yaml` files.

    `dagster.load_from_defs_folder` also imports every installed type of component, such as those for Google Cloud. That
    would take half a second in every run. It also needs a pyproject.toml, which an installed package does not have.

    Args:
        package: A package, such as `taxi_assets.defs`. Folders in it need no `__init__.py`.
    """
    folder = Path(package.__path__[0])
    tree = dg.ComponentTree.from_module(defs_module=package, project_root=folder.parents[1])
    return tree.build_defs(folder)


defs = merge_definitions(build_definitions(Settings.from_env()), load_package(defs_package))

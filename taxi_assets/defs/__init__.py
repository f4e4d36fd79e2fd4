"""Your own definitions: assets, checks, jobs, schedules, sensors and components. Dagster loads them with the platform.

To add a file, run `dg scaffold defs dagster.asset mine.py`. Dagster loads every definition at the top level of a module
and every component in a `defs.yaml`. docs/how-to/own-assets.md has examples.
"""

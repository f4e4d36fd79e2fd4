"""Commands that people run: `make backfill`, `make demo`, `make doctor`, `make docs` and `make dbt-sources`.

Belongs here: parsing arguments, printing results, and running many months in parallel. Does not belong here: logic that
a Dagster run, sensor or schedule needs as well; no other package imports this one.
"""

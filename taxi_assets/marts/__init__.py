"""Marts: tables that the warehouse computes from the trips of all services.

A mart is one file in `sql/`: a header that describes it, and the query of one month. Adding a file adds a mart.

- `mart.py` reads these files.
- `all_trips.py` defines the relation that they read from.
- `portable_sql.py` defines the SQL that they may use.
- `sql_rendering.py` turns them into the SQL of one warehouse.

Does not belong here: running a query (`storage/warehouse/`) and anything that imports Dagster.
"""

"""Marts: answers as tables, computed in the warehouse from the trips of all services.

A mart is one file in `sql/`: a header that says what it is, and the query of one month. Nothing else has to be touched.
`mart.py` reads those files, `all_trips.py` is what they read from, `portable_sql.py` says what can be written in them, and
`sql_rendering.py` turns them into a warehouse's SQL.
Nothing here knows Dagster.
"""

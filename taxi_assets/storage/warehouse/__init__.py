"""The warehouse: one table of trips for each service, tables of marts, and unpartitioned tables, in a database.

Belongs here: the interface of a warehouse (`base_warehouse.py`), and one package for each database that implements it.
Does not belong here: the queries of marts (`marts/`), the schema of trips (`tlc/`), and Dagster assets and IO managers.
"""

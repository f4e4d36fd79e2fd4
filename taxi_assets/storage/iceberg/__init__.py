"""Iceberg tables over the lake's Parquet: the catalog, and commits that replace one month at a time.

pyiceberg is an optional dependency. Only functions of these modules import it, so that a deployment without
`TAXI_CATALOG` does not need it.
"""

"""Stored rows as datasets, for notebooks, scripts and query engines: `taxi_assets.scan`.

Belongs here: which files or partitions a scan reads, and errors for its arguments.
Does not belong here: how rows are stored and read (`storage/`), and inputs of assets (`io_managers/`).
"""

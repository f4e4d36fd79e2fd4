"""The domain: which files TLC publishes, how to read them, and which rows are valid.

Belongs here: services, publishers, readers, cleaning and the synthetic sample. Nothing in this package imports Dagster.
Does not belong here: where data is stored (`storage/`) and when runs happen (`automation/`).
"""

"""Cleaning: from one published file to a Parquet file of clean trips and one of quarantined rows.

Belongs here: the conversion of published values to canonical ones, derived columns, the split of rows by the rules,
and the report with the counts that prove that no row was lost.
Does not belong here: file layouts (`readers/`), the rules themselves (`rules.py`), and where the two files are stored
(`storage/lake/`).

Start with `clean_month`, which cleans a whole file, then `split_batch`, which splits one batch of rows.
"""

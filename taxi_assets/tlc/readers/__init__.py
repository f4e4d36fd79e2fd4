"""Readers of published files: they return rows as published, each with its row number in the file.

Belongs here: file layouts. That is how to split bytes into lines and fields, how to match published column names to
canonical ones, and how to recognize rows that are malformed or not UTF-8.
Does not belong here: the meaning of values (`values/`), rules (`rules.py`), and the download and validation
of files (`sources/`).

`open_trips` returns the reader for a file's format. Every reader implements `base_reader.TripReader`.
"""

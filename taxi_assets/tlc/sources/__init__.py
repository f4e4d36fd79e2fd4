"""Where trip files come from: publishers, downloads, version checks and the validation of what was downloaded.

What belongs here:

- `publishers.py`: the URLs at which each publisher offers a month; what `TAXI_SOURCE` accepts.
- `download.py`, `version_check.py`: the two functions that callers use, `download` and `check_version`.
- `transports/`: one way of reading files per kind of URL.
- `source_record.py`: the values that describe a published file and the copy in the lake.
- `validate_file.py`: checks that a file is a complete trip file, and counts its rows.
- `wrong_formats.py`: recognizes error pages and other documents by their first bytes.

What does not belong here: storing files (`storage/lake/`), reading their rows (`tlc/readers/`), and Dagster.
"""

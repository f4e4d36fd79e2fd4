"""Read published files: one `Transport` per kind of URL.

What belongs here: the interface (`base_transport.py`), its implementations for HTTP, Cloud Storage, folders and the
synthetic sample, and the table from URL scheme to implementation (`schemes.py`).

What does not belong here: the choice between several URLs (`download.py`, `version_check.py`), and whether a file's
content is valid (`validate_file.py`).
"""

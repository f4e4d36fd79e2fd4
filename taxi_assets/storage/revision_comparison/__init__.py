"""Comparing two revisions of a month, row by row."""

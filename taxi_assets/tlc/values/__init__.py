"""Values: from a published column of text or typed values to a canonical column.

Belongs here: the texts and types that are read as a number, a time, a flag or as null, and the arrays that hold them
during cleaning.
Does not belong here: which column is read (`readers/`), rules, and the decisions about a whole file (`cleaning/`).

Start with `parse_column`.
"""

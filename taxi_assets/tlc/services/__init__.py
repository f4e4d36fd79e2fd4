"""The services: one module per service, with its columns, rules and first month.

Belongs here: service definitions, the columns that services share, and the registry that validates them.
Does not belong here: the types of a definition (`schema.py`) and the rules that services share (`rules.py`).
"""

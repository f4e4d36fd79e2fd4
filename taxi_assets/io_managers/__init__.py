"""How assets are stored: one IO manager per kind of asset.

Belongs here: mapping a Dagster output or input to one object of the lake or one table of the warehouse.
Does not belong here: what an asset contains (`assets/`), and how a store replaces data atomically (`storage/`).
"""

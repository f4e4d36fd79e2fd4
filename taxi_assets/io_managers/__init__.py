"""How assets are stored: one IO manager per kind of asset.

Belongs here: which object of the lake, or which table of the warehouse, stores an output.
Does not belong here: what an asset contains (`assets/`), and how the lake and the warehouse replace data (`storage/`).
"""

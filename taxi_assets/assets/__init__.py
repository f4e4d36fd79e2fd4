"""Asset factories, one module per layer.

IO managers store what the assets return. `tlc/` decides which rows are valid.
"""

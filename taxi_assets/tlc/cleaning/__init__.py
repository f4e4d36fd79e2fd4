"""TODO package taxi_assets/tlc/cleaning."""

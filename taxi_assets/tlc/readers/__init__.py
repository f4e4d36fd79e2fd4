"""TODO package taxi_assets/tlc/readers."""

"""TODO package taxi_assets/tlc/sources."""

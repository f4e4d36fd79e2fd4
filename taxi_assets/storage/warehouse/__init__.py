"""TODO package taxi_assets/storage/warehouse."""

"""TODO package taxi_assets/storage/lake."""

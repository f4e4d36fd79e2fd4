"""TODO package taxi_assets/resources."""

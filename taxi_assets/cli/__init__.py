"""TODO package taxi_assets/cli."""

"""TODO package taxi_assets/notifications."""

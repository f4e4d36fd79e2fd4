"""TODO package taxi_assets/automation/publication."""

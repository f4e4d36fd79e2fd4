"""TODO package taxi_assets/automation/sensors."""

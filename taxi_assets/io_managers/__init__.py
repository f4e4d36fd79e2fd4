"""TODO package taxi_assets/io_managers."""

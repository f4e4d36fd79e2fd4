"""What runs the assets."""

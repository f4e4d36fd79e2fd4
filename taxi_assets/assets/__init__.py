"""The assets: what they are, as thin factories. How they are stored is `storage/`, what is right is `tlc/`."""

"""One file a service: its columns, rules and first month."""

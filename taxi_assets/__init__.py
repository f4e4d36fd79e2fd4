"""New York's taxi records as Dagster assets; see README.md."""

"""The domain: what TLC publishes and what is right. Knows no Dagster."""

"""A team's Dagster project: the taxi_assets platform, and the team's dbt models downstream of it."""

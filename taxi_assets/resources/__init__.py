"""Dagster resources for external services: the publisher, Cloud Storage and BigQuery.

What belongs here: the configuration of a service and how to get a client for it.

What does not belong here: the work done with the client. Downloads are in `tlc/sources/`, lakes and warehouses in
`storage/`. IO managers are resources too, but have their own package, `io_managers/`.
"""

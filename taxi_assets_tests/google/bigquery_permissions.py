"""The BigQuery double's permissions: all are granted until a test revokes one.

Permission names follow the page "BigQuery IAM roles and permissions", messages the page "Error messages".
"""

from __future__ import annotations

from dataclasses import dataclass, field

from taxi_assets_tests.google.bigquery_values import GoogleError


@dataclass
class Permissions:
    """The permissions that the caller lacks."""

    project: str
    forbidden: set[str] = field(default_factory=set)
    demanded: set[str] = field(default_factory=set)
    """The permissions that requests and jobs have needed so far."""

    def demand(self, permission: str, resource: str | None = None) -> None:
        """Raise the service's error if the caller lacks a permission.

        Args:
            permission: Such as `bigquery.tables.get`.
            resource: `Table p:d.t` or `Dataset p:d`; None means the project.
        """
        self.demanded.add(permission)
        if permission not in self.forbidden:
            return
        if resource is None:
            raise GoogleError(
                "accessDenied",
                f"Access Denied: Project {self.project}: User does not have {permission} "
                f"permission in project {self.project}.",
            )
        kind, name = resource.split(" ", 1)
        raise GoogleError(
            "accessDenied",
            f"Access Denied: {resource}: Permission {permission} denied on "
            f"{kind.lower()} {name} (or it may not exist).",
        )

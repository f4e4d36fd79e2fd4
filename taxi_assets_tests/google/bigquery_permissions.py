"""Who may do what: everything, until a test forbids a permission.

Belongs here: permissions and the service's words for a missing one. Does not belong here: what needs which.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from taxi_assets_tests.google.bigquery_values import GoogleError


@dataclass
class Permissions:
    """The permissions the caller lacks."""

    project: str
    forbidden: set[str] = field(default_factory=set)

    def demand(self, permission: str, resource: str | None = None) -> None:
        """Refuse without the permission; `resource`: `Table p:d.t` or `Dataset p:d`, the project if None."""
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

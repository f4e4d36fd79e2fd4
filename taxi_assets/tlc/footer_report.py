"""A report that is stored in the footer of a Parquet file, together with the rows that it describes."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict


class FooterReport(BaseModel):
    """Subclasses have the fields of the report, and the key of its JSON in Parquet key-value metadata."""

    model_config = ConfigDict(frozen=True)

    FOOTER_KEY: ClassVar[bytes]

    def footer(self) -> dict[bytes, bytes]:
        """Return the report as Parquet key-value metadata."""
        return {self.FOOTER_KEY: self.model_dump_json().encode()}

    @classmethod
    def from_footer(cls, metadata: dict[bytes, bytes] | None) -> Self | None:
        """Return the report from a file's Parquet key-value metadata.

        Args:
            metadata: The key-value metadata, or None if the file has none.

        Returns:
            The report, or None if there is none or another version of this package has written it.
        """
        text = (metadata or {}).get(cls.FOOTER_KEY)
        try:
            return None if text is None else cls.model_validate_json(text)
        except ValueError:
            return None

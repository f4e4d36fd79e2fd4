"""Read and write the files of Iceberg tables through the lake.

So they use the lake's credentials, retries and errors, and a file is on disk before the catalog names it.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile, OutputStream

from taxi_assets.errors import LakeObjectMissingError
from taxi_assets.storage.iceberg.iceberg_names import key_in_lake, lake_root

if TYPE_CHECKING:
    from taxi_assets.storage.lake.base_lake import Lake

_ROOT = "taxi.lake"
# pyiceberg creates a FileIO from properties, which are texts.
_lakes: WeakValueDictionary[str, Any] = WeakValueDictionary()


def register_lake(lake: Lake) -> dict[str, str]:
    """Return the properties of a catalog whose tables are read and written through a lake."""
    root = lake_root(lake)
    _lakes[root] = lake
    return {"py-io-impl": f"{__name__}.{LakeFileIO.__name__}", _ROOT: root}


class LakeFileIO(FileIO):
    """Reads and writes the objects of a lake by their URIs."""

    def new_input(self, location: str) -> _LakeFile:
        """Return a file to read."""
        return self._file(location)

    def new_output(self, location: str) -> _LakeFile:
        """Return a file to write. It appears when it is closed."""
        return self._file(location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Delete a file, if it exists."""
        file = self._file(location if isinstance(location, str) else location.location)
        file.lake.delete(file.key)

    def _file(self, location: str) -> _LakeFile:
        root = self.properties[_ROOT]
        return _LakeFile(location, _lakes[root], key_in_lake(root, location))


class _LakeFile(InputFile, OutputFile):
    """An object of the lake."""

    def __init__(self, location: str, lake: Lake, key: str) -> None:
        InputFile.__init__(self, location)
        self.lake, self.key = lake, key

    def __len__(self) -> int:
        size = self.lake.size(self.key)
        if size is None:
            raise FileNotFoundError(self.location)
        return size

    def exists(self) -> bool:
        """Return whether the object exists."""
        return self.lake.size(self.key) is not None

    def open(self, seekable: bool = True) -> InputStream:  # noqa: ARG002  (always seekable)
        """Open the object for reading."""
        try:
            return self.lake.open(self.key)
        except LakeObjectMissingError:
            raise FileNotFoundError(self.location) from None

    def to_input_file(self) -> InputFile:
        """Return the same object, for reading."""
        return self

    def create(self, overwrite: bool = False) -> OutputStream:
        """Open a stream whose content becomes the object when it is closed."""
        if not overwrite and self.exists():
            raise FileExistsError(self.location)
        return _Upload(self)


class _Upload(io.BytesIO):
    """A file that is written to the lake when it is closed. Metadata files are small."""

    def __init__(self, target: _LakeFile) -> None:
        super().__init__()
        self._target = target

    def close(self) -> None:
        if not self.closed:
            with self._target.lake.staging() as folder:
                file = folder / "metadata"
                file.write_bytes(self.getvalue())
                key = self._target.key
                replaces = self._target.lake.version(key)
                self._target.lake.publish(file, key, replaces=replaces, run_id="iceberg")
        super().close()

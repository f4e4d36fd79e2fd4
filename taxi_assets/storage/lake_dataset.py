"""A `pyarrow.dataset.Dataset` of Parquet objects in a lake, each opened only while a scan reads it."""

from __future__ import annotations

import atexit
import io
import time
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, NoReturn
from weakref import WeakSet

import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs

from taxi_assets.errors import LakeConflictError
from taxi_assets.storage.lake.base_lake import conflict_error
from taxi_assets.storage.parquet_rows import SelfClosingFile

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import pyarrow.compute as pc

    from taxi_assets.storage.lake.base_lake import Lake

_FORMAT = pyarrow.dataset.ParquetFileFormat()
_ATTEMPTS = 10
_CLOSE_SECONDS = 10
_RELEASE_SECONDS = 0.5
_LEAVE_SECONDS = 0.2
# With pyarrow's defaults, 16 batches of 4 files, a scan of all columns of yellow trips holds 2 GB.
_READ_AHEAD = {"batch_readahead": 2, "fragment_readahead": 2}
_NO_READ_AHEAD = {"batch_readahead": 1, "fragment_readahead": 1}


class LakeDataset(pyarrow.dataset.FileSystemDataset):  # type: ignore[misc]  # pyarrow has no types
    """Rows of Parquet objects. Every scan reads each object in one version: the current one when the scan opens it.

    A `pyarrow.dataset.FileSystemDataset` keeps the footer of each file that it has read. After a replacement, it would
    apply the old footer to the new file. Here, each scan, and each call of another method, starts with new fragments.

    pyarrow opens a file when a scan reaches it, and closes it afterwards, so the number of open files stays small.

    Args:
        lake: The lake.
        objects: The keys of the objects, in the order of their rows. Each has an expression that is true for all of its
            rows, or None: a scan whose filter contradicts it does not open the object.
        schema: The columns. A column that an object lacks is null.
        condition: Only rows for which this expression is true.
    """

    def __init__(
        self,
        lake: Lake,
        objects: Mapping[str, pc.Expression | None],
        schema: pa.Schema,
        condition: pc.Expression | None = None,
    ) -> None:
        self._lake, self._objects, self._condition = lake, dict(objects), condition
        # What pyarrow itself reads, such as the other side of a join, are the fragments of the base class.
        files = pyarrow.fs.PyFileSystem(_LakeFiles(lake))
        super().__init__(_fragments(objects, files), schema, _FORMAT, files)
        if condition is not None:
            self._scan_options = {"filter": condition}  # as pyarrow's own `filter` does

    def scanner(self, columns: Any = None, filter: Any = None, **options: Any) -> Any:  # noqa: A002  (as in pyarrow)
        """Return a scanner, which reads the current version of each object.

        Args:
            columns: Names of columns, or expressions by name; by default all columns.
            filter: Only rows for which this expression is true.
            **options: Options of `pyarrow.dataset.Scanner`. By default, a scan reads less ahead than in pyarrow.
        """
        return self._current().scanner(columns=columns, filter=filter, **{**_READ_AHEAD, **options})

    def head(self, num_rows: int, columns: Any = None, filter: Any = None, **options: Any) -> pa.Table:  # noqa: A002
        """Return the first rows. pyarrow would read ahead in all columns of several objects."""
        return super().head(num_rows, columns=columns, filter=filter, **{**_NO_READ_AHEAD, **options})

    def count_rows(self, filter: Any = None, **options: Any) -> int:  # noqa: A002  (as in pyarrow)
        """Return the number of rows, from the footers if there is no filter.

        With a filter, pyarrow would open an object for its footer, and open it again for its rows.
        """
        if filter is None and self._condition is None:
            return int(super().count_rows(**options))
        return sum(batch.num_rows for batch in self.scanner(columns=[], filter=filter, **options).to_batches())

    def filter(self, expression: pc.Expression) -> LakeDataset:
        """Return a dataset of the rows for which an expression is true."""
        condition = expression if self._condition is None else self._condition & expression
        return LakeDataset(self._lake, self._objects, self.schema, condition)

    def replace_schema(self, schema: pa.Schema) -> LakeDataset:
        """Return a dataset with other columns of the same objects."""
        return LakeDataset(self._lake, self._objects, schema, self._condition)

    def get_fragments(self, filter: pc.Expression | None = None) -> Any:  # noqa: A002  (as in pyarrow)
        """Return an iterator of the objects that may have rows for which the filter is true."""
        files = pyarrow.fs.PyFileSystem(_LakeFiles(self._lake))
        return self._open(_fragments(self._objects, files), files).get_fragments(filter)

    def sort_by(self, sorting: Any, **options: Any) -> Any:
        """Return the rows in another order, as an in-memory dataset; see `pyarrow.dataset.Dataset.sort_by`."""
        return self._current().sort_by(sorting, **options)

    def join(self, *arguments: Any, **options: Any) -> Any:
        """Return the rows joined with another dataset, in memory; see `pyarrow.dataset.Dataset.join`."""
        return self._current().join(*arguments, **options)

    def join_asof(self, *arguments: Any, **options: Any) -> Any:
        """Return the rows joined by the nearest key, in memory; see `pyarrow.dataset.Dataset.join_asof`."""
        return self._current().join_asof(*arguments, **options)

    def __reduce__(self) -> NoReturn:
        raise NotImplementedError("A dataset of the lake cannot be sent to another process. Open it there instead.")

    def _current(self) -> Any:
        """Return a dataset for one scan, which opens each object once."""
        if self._lake.is_remote:
            handler = _LakeFiles(self._lake)
            _scans.add(handler)
            files = pyarrow.fs.PyFileSystem(handler)
            return self._open(_fragments(self._objects, files), files)
        # Reading needs no Python code. pyarrow's threads would call it after the end of a script, which then crashes.
        files = pyarrow.fs.LocalFileSystem()
        objects = {self._lake.uri(key): expression for key, expression in self._objects.items()}
        return self._open(_fragments(objects, files), files)

    def _open(self, fragments: Sequence[Any], files: pyarrow.fs.FileSystem) -> Any:
        dataset = pyarrow.dataset.FileSystemDataset(fragments, self.schema, _FORMAT, files)
        return dataset if self._condition is None else dataset.filter(self._condition)


def _fragments(objects: Mapping[str, pc.Expression | None], files: pyarrow.fs.FileSystem) -> list[Any]:
    return [_FORMAT.make_fragment(path, files, expression) for path, expression in objects.items()]


class _LakeFiles(pyarrow.fs.FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """Opens objects for pyarrow, each in one version: it may have kept the footer of a file that it opens again."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._versions: dict[str, str] = {}

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def get_type_name(self) -> str:
        """Return the name of this kind of file system."""
        return "taxi-lake"

    def normalize_path(self, path: str) -> str:
        """Return the key of the object, unchanged."""
        return path

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Open the current version of an object; the same version again if it has been opened before."""
        file = _ScannedFile()
        try:
            file.open(self._open(path))
        except BaseException:
            file.close()
            raise
        return pa.PythonFile(file, mode="r")

    def _open(self, path: str) -> BinaryIO:
        known = self._versions.get(path)
        for _ in range(_ATTEMPTS):
            version = known or self._lake.version(path)
            try:
                file = self._lake.open(path, version)
            except LakeConflictError:
                if known:
                    raise
                continue  # replaced since its version was read
            self._versions[path] = version or ""
            return file
        raise conflict_error(self._lake.uri(path))

    def _unavailable(self, *_args: Any, **_options: Any) -> NoReturn:
        raise NotImplementedError("The lake is read-only here.")

    get_file_info = get_file_info_selector = open_input_stream = open_output_stream = open_append_stream = _unavailable
    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = delete_file = _unavailable
    move = copy_file = _unavailable


class _ScannedFile(SelfClosingFile):
    """A file that pyarrow's threads read until the process ends. It is closed with the last scan that reads it.

    A scan of which only the first rows are used still reads ahead. A thread that calls Python code while the
    interpreter shuts down would crash the process, or keep it from ending.
    """

    _unclosed: ClassVar[set[int]] = set()
    _process_ends: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__(io.BytesIO())
        self._require_running()
        self._unclosed.add(id(self))

    def open(self, file: BinaryIO) -> None:
        """Read this file from now on."""
        self._file = file

    def read(self, size: int = -1) -> bytes:
        self._require_running()
        return super().read(size)

    def close(self) -> None:  # called by the destructor, too
        super().close()
        self._unclosed.discard(id(self))

    def _require_running(self) -> None:
        if self._process_ends:
            raise InterruptedError("The process ends.")

    @classmethod
    def fail_all(cls) -> bool:
        """Let all scans fail, and wait until they have closed their files; return whether there were any."""
        were_open, cls._process_ends = bool(cls._unclosed), True
        _wait_while(cls._unclosed, _CLOSE_SECONDS)
        return were_open


_scans: WeakSet[_LakeFiles] = WeakSet()
"""The scans that pyarrow has not released yet."""


def _end_scans() -> None:
    are_reading = bool(_scans)
    are_reading |= _ScannedFile.fail_all()
    # Those that the script itself keeps are not released before the process ends.
    _wait_while(_scans, _RELEASE_SECONDS)
    if are_reading:  # a thread of pyarrow that has just released its last object still has to leave Python
        time.sleep(_LEAVE_SECONDS)


def _wait_while(busy: Collection[Any], seconds: float) -> None:
    """Wait until a collection is empty, but not longer than some seconds. Threads of pyarrow go on meanwhile."""
    deadline = time.monotonic() + seconds
    while busy and time.monotonic() < deadline:
        time.sleep(0.01)


atexit.register(_end_scans)

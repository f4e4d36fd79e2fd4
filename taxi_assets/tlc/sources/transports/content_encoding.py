"""Decode the body of an HTTP answer with a Content-Encoding header, after it has arrived completely.

The body is stored as it was sent, so that its length can be compared with Content-Length, and an interrupted download
can be resumed.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from taxi_assets.errors import InvalidFileError
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.sources.content_limits import invalid_file_error
from taxi_assets.tlc.sources.transports.base_transport import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from taxi_assets.tlc.sources.transports.base_transport import DownloadRequest

_CODECS = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "gzip", "br": "brotli", "zstd": "zstd"}
"""Arrow's codec of each coding. Its gzip codec also reads the zlib format, which HTTP calls deflate."""

_UNSUPPORTED = {"compress", "x-compress", "dcb", "dcz"}
_GZIP = b"\x1f\x8b"
_MAGIC = {FileFormat.CSV_GZ: _GZIP, FileFormat.PARQUET: b"PAR1", FileFormat.ZIP: b"PK"}
_GET_FILE = "Download it with a browser and serve it from a folder, or choose another publisher (TAXI_SOURCE)."


def content_codings(header: str | None) -> list[str]:
    """Return the codings in a Content-Encoding header, in the order in which the server applied them.

    Names that are not codings, such as a character set or S3's aws-chunked, say nothing about the body and are left
    out.
    """
    names = [name.strip().lower() for name in (header or "").split(",")]
    return [name for name in names if name in _CODECS or name in _UNSUPPORTED]


def decode_body(request: DownloadRequest, codings: Sequence[str]) -> None:
    """Replace the body at `request.path` with the file that it encodes.

    A body that is not encoded as the header says is kept. So is a `.csv.gz` file that a server sends as stored, and
    labels with its own compression: decoding it would leave a CSV file.

    Raises:
        InvalidFileError: The body cannot be decoded, or the file exceeds `request.limits`.
    """
    if not _is_encoded(request, codings):
        return
    decoded = request.path.with_name(f"{request.path.name}.decoded")
    try:
        _decode(request, codings, decoded)
        decoded.replace(request.path)
    finally:
        decoded.unlink(missing_ok=True)


def _is_encoded(request: DownloadRequest, codings: Sequence[str]) -> bool:
    with request.path.open("rb") as body:
        head = body.read(len(_GZIP) + 2)
    if codings[-1] in {"gzip", "x-gzip"} and not head.startswith(_GZIP):
        return False
    magic = _MAGIC.get(request.source.format)
    if magic is None or not head.startswith(magic):
        return True
    # The body begins like the file itself. It encodes the file only if the decoded bytes begin so, too.
    with suppress(InvalidFileError), _open_decoded(request, codings) as stream:
        return _read(stream, len(magic), request, codings).startswith(magic)
    return False


def _decode(request: DownloadRequest, codings: Sequence[str], path: Path) -> None:
    sent, decoded = request.path.stat().st_size, 0
    with _open_decoded(request, codings) as stream, path.open("wb") as file:
        while chunk := _read(stream, CHUNK_BYTES, request, codings):
            decoded += len(chunk)
            request.check_size(decoded, stored=sent)
            file.write(chunk)


def _open_decoded(request: DownloadRequest, codings: Sequence[str]) -> Any:
    stream: Any = pa.OSFile(str(request.path))
    for coding in reversed(codings):
        if coding in _UNSUPPORTED:
            raise _decoding_error(request, codings)
        stream = pa.CompressedInputStream(stream, _CODECS[coding])
    return stream


def _read(stream: Any, count: int, request: DownloadRequest, codings: Sequence[str]) -> bytes:
    try:
        chunk: bytes = stream.read(count)
    except (OSError, pa.ArrowException):  # the decoder raises OSError for a damaged body
        raise _decoding_error(request, codings) from None
    return chunk


def _decoding_error(request: DownloadRequest, codings: Sequence[str]) -> InvalidFileError:
    finding = f"it was sent with Content-Encoding: {', '.join(codings)}, and cannot be decoded"
    return invalid_file_error(request.label, request.url, finding, remedy=_GET_FILE)

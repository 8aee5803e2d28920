"""Compressed files: gzip, bzip2, xz, Zstandard, or a zip of one file, recognised by content."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import zstandard

from models.errors import UnreadableRecording
from streams.object_store import Objects

CHUNK_BYTES = 256 * 1024
HEAD_BYTES = 512
ZSTANDARD_CHUNK_BYTES = 16 * 1024
"""Small, since a chunk is unpacked as a whole."""


DAMAGE_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile,
           zstandard.ZstdError, OSError, ValueError)  # fmt: skip
"""Errors of unpacking a damaged file."""

PARQUET = b"PAR1"
_ZIP = b"PK\x03\x04"
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_FOREIGN = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it",
    b"Rar!": "a rar archive: unpack it",
    b"%PDF": "a PDF",
    b"SQLite format 3": "a SQLite database: export its table as CSV",
    b"Obj\x01": "an Avro file: convert it to Parquet or JSON Lines",
    b"ORC": "an ORC file: convert it to Parquet",
    b"ARROW1": "an Arrow file: convert it to Parquet",
    b"FEA1": "a Feather file: convert it to Parquet",
    b"\x89HDF": "an HDF5 file: convert it to Parquet",
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls): save it as .xlsx or CSV",
    b"PK\x05\x06": "an empty zip archive",
}
_ENDINGS = (".gz", ".bz2", ".xz", ".zst", ".zstd", ".zip")


class Unpacked(NamedTuple):
    """An unpacked file.

    Attributes
    ----------
    stream
        Its bytes; `path` is a file with them, for readers that need one.
    kind
        `"text"`, `"parquet"` or `"xlsx"`.
    name
        File name without the suffix of its compression.
    compression
        Its compression or archive; "" without one.
    """

    stream: Any
    kind: str
    name: str
    compression: str
    path: Path | None = None


class _Counted(io.RawIOBase):
    """A stream that reports the bytes read from it."""

    def __init__(self, stream: BinaryIO, on_bytes: Callable[[int], None]) -> None:
        self._stream = stream
        self._on_bytes = on_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        chunk = self._stream.read(len(buffer))
        buffer[: len(chunk)] = chunk
        self._on_bytes(len(chunk))
        return len(chunk)


@contextlib.contextmanager
def open_unpacked(
    objects: Objects, url: str, folder: Path, on_bytes: Callable[[int], None]
) -> Iterator[Unpacked]:
    """The content of an object, unpacked.

    Parameters
    ----------
    folder
        For temporary files, which are removed again.
    on_bytes
        Called with the number of bytes of each read.

    Raises
    ------
    UnreadableRecording
        The object is no data: an archive of several files, a database, ….
    """
    name = url.rsplit("/", 1)[-1].lower()
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(objects.open(url))
        raw: Any = io.BufferedReader(_Counted(source, on_bytes), CHUNK_BYTES)
        packed = next((how for magic, how in _PACKED.items() if _head(raw).startswith(magic)), "")
        if _head(raw).startswith(_ZIP):
            path = stack.enter_context(objects.as_file(url, folder))
            archive = stack.enter_context(_archive(path))
            if "[Content_Types].xml" in archive.namelist():
                on_bytes(path.stat().st_size)
                yield Unpacked(raw, "xlsx", name, "", path)
                return
            member = _only(archive)
            raw = io.BufferedReader(
                _Counted(stack.enter_context(_member(archive, member)), lambda _: None),
                CHUNK_BYTES,
            )
            on_bytes(path.stat().st_size)
            name, packed = member.rsplit("/", 1)[-1].lower(), "zip"
        elif packed:
            raw = stack.enter_context(_unpacked(raw, packed))
        for ending in _ENDINGS:
            name = name.removesuffix(ending)
        head = _head(raw)
        for magic, what in _FOREIGN.items():
            if head.startswith(magic):
                raise UnreadableRecording(f"is {what}")
        if head[257:262] == b"ustar":
            raise UnreadableRecording("is a tar archive: unpack it")
        if not head.startswith(PARQUET):
            yield Unpacked(raw, "text", name, packed)
            return
        if packed:
            path = stack.enter_context(_spooled(raw, folder))
        else:
            path = stack.enter_context(objects.as_file(url, folder))
            on_bytes(path.stat().st_size)
        yield Unpacked(raw, "parquet", name, packed, path)


def _head(stream: Any) -> bytes:  # noqa: ANN401
    try:
        return bytes(stream.peek(HEAD_BYTES)[:HEAD_BYTES])
    except DAMAGE_ERRORS as error:
        raise UnreadableRecording(f"damaged: {error}") from error


def _unpacked(raw: Any, packed: str) -> Any:  # noqa: ANN401
    stream: Any
    if packed == "gzip":
        stream = gzip.GzipFile(fileobj=raw)
    elif packed == "bzip2":
        stream = bz2.BZ2File(raw)
    elif packed == "xz":
        stream = lzma.LZMAFile(raw)  # noqa: SIM115  closed with the reader around it
    else:
        stream = _Zstandard(raw)
    return io.BufferedReader(stream, CHUNK_BYTES)


class _Zstandard(io.RawIOBase):
    """The content of Zstandard frames; one that is cut off is an error, as it is for gzip."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._frame = zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()
        self._left = b""
        self._is_inside = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._left:
            packed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()
                self._is_inside = False
            packed = packed or self._raw.read(ZSTANDARD_CHUNK_BYTES)
            if not packed:
                if self._is_inside:
                    raise EOFError("the last frame is cut off")
                return 0
            self._is_inside = True
            self._left = self._frame.decompress(packed)
        n = min(len(buffer), len(self._left))
        buffer[:n], self._left = self._left[:n], self._left[n:]
        return n


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except zipfile.BadZipFile as error:
        raise UnreadableRecording(f"damaged: {error}") from error


def _member(archive: zipfile.ZipFile, member: str) -> BinaryIO:
    try:
        return archive.open(member)  # type: ignore[return-value]
    except (RuntimeError, NotImplementedError) as error:
        raise UnreadableRecording(f"cannot be unzipped here: {error}") from error


def _only(archive: zipfile.ZipFile) -> str:
    """The one data file of a zip."""
    members = [
        each.filename
        for each in archive.infolist()
        if not each.is_dir()
        and not any(part[:1] in {".", "_"} for part in each.filename.split("/"))
    ]
    if len(members) != 1:
        raise UnreadableRecording(
            f"a zip archive of {len(members)} files, and only one of one file can be read: unpack"
            " it and name the folder"
        )
    return members[0]


@contextlib.contextmanager
def _spooled(stream: BinaryIO, folder: Path) -> Iterator[Path]:
    """A file with the rest of a stream, removed after the block."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        try:
            while chunk := stream.read(CHUNK_BYTES):
                file.write(chunk)
        except DAMAGE_ERRORS as error:
            raise UnreadableRecording(f"damaged: {error}") from error
        file.flush()
        yield Path(file.name)

"""Offsets that an embedded broker has acknowledged, recorded outside of it.

Such a broker keeps messages in memory. After it was killed, only its producers know which messages
it had acknowledged, and so how many of them are lost: each process that produces keeps a file of
its own, which outlives it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import struct
import threading
from pathlib import Path
from typing import Self

from models.errors import Unavailable
from models.settings import Settings
from models.state.clients.client import client_of
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.shards.sharded_store import store_of
from models.state.shards.stored_layout import settings_on_stored_shards
from models.tokens import Receipt

FOLDER = "acknowledged"
BROKER = "broker"
"""Name of the file with the broker's address: that of a `recommender up` in this folder."""

_FIELD_BYTES = 248
_END = struct.Struct("<Q")
_SLOT_BYTES = _FIELD_BYTES + _END.size

LOG = logging.getLogger(__name__)


class AcknowledgedOffsets:
    """A producer's file: for each partition, the offset after the last acknowledged one.

    Written in place, a few bytes at a time: it survives the process, even if that is killed.
    """

    def __init__(self, folder: Path) -> None:
        name = f"{os.getpid()}-{secrets.token_hex(4)}.ends"
        self._file = os.open(folder / name, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
        self._slots: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()
        self._is_open = True

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """The file of a producer to this folder's embedded broker; None for other brokers."""
        folder = settings.data_dir / FOLDER
        with contextlib.suppress(FileNotFoundError):
            if (folder / BROKER).read_text() == settings.kafka:
                return cls(folder)
        return None

    def note(self, receipt: Receipt) -> None:
        """Record acknowledged messages."""
        for one in receipt.published:
            self._note(f"{one.incarnation}/{one.partition}", one.offset + 1)

    def close(self) -> None:
        """Close the file; later calls record nothing."""
        with self._lock:
            if self._is_open:
                self._is_open = False
                os.close(self._file)

    def _note(self, field: str, end: int) -> None:
        with self._lock:
            slot, known = self._slots.get(field, (len(self._slots), 0))
            if not self._is_open or end <= known:
                return
            try:
                if not known:
                    name = field.encode().ljust(_FIELD_BYTES, b"\0")
                    os.pwrite(self._file, name + _END.pack(end), slot * _SLOT_BYTES)
                else:
                    os.pwrite(self._file, _END.pack(end), slot * _SLOT_BYTES + _FIELD_BYTES)
            except OSError as error:
                # The messages were acknowledged all the same.
                LOG.warning("messages lost with a killed broker will not be counted: %s", error)
                self._is_open = False
                os.close(self._file)
                return
            self._slots[field] = slot, end


def begin(settings: Settings) -> None:
    """Begin to record this embedded broker's acknowledgements; earlier files are removed."""
    folder = settings.data_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    (folder / BROKER).write_text(settings.kafka)


async def lost(settings: Settings) -> dict[str, int]:
    """Number of acknowledged messages of each partition that are lost with their broker.

    Raises
    ------
    Unavailable
        Redis does not answer, or no acknowledgement was recorded.
    """
    folder = settings.data_dir / FOLDER
    if not (folder / BROKER).exists():
        raise Unavailable(f"{folder} says nothing of a broker")
    ends = _ends(folder)
    client = client_of(settings)
    try:
        store = store_of(client, await settings_on_stored_shards(client, settings))
        marks = await store.watermarks([*ends])
    except AWAY_ERRORS as error:
        raise Unavailable(f"Redis at {settings.redis} does not answer: {error}") from error
    finally:
        await client.aclose()
    counted = zip(ends.items(), marks, strict=True)
    return {field: end - 1 - mark for (field, end), mark in counted if end - 1 > mark}


def _ends(folder: Path) -> dict[str, int]:
    """The largest recorded end of each partition, over all files."""
    found: dict[str, int] = {}
    for path in sorted(folder.glob("*.ends")):
        raw = path.read_bytes()
        for at in range(0, len(raw) - _SLOT_BYTES + 1, _SLOT_BYTES):
            field = raw[at : at + _FIELD_BYTES].rstrip(b"\0").decode()
            (end,) = _END.unpack_from(raw, at + _FIELD_BYTES)
            found[field] = max(end, found.get(field, 0))
    return found

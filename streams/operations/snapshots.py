"""Snapshots: copies of all state in a folder or in S3, and state that is made of one again.

<folder>/<name>/part-000001    values of keys (`copies.saved_values`) as MessagePack, by zlib
<folder>/<name>/manifest.json  `Manifest`; written last, so that without it there is no snapshot
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
import zlib
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any, NamedTuple

import msgspec

from models.errors import ObjectNotFound, RecommenderError, SnapshotRefused
from models.settings import Settings
from models.state import layout
from models.state.copies.format_check import check_format, refuse_while_moving
from models.state.copies.saved_values import SavedValue
from models.state.copies.state_copies import StateCopy
from models.state.copies.state_replacements import StateReplacement, skipped_deltas
from streams.kafka.consuming.delta_offsets import last_deltas
from streams.kafka.topics import ensure_topics
from streams.object_store import Objects, join

FORMAT = 1
"""Version of the files. One that holds the same differently is another."""

PART_BYTES = 8 * 2**20
"""Values in a part, before it is packed; the last value may go beyond it."""

MAX_PART_BYTES = 512 * 2**20
"""Largest part that is unpacked."""

MAX_MANIFEST_BYTES = 64 * 2**20

LEVEL = 1
"""Of zlib: the fastest. What is packed are small numbers and names, and others wait for the CPU."""

MANIFEST = "manifest.json"

_values = msgspec.msgpack.Decoder(list[SavedValue])


class SnapshotPart(msgspec.Struct, frozen=True):
    """A file of values: its size before it was packed and after, in bytes, and its checksum."""

    name: str
    bytes: int
    packed_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """Contents of a snapshot, and its time.

    Attributes
    ----------
    format, state_format
        Versions of these files, and of what the keys hold (`models.state.layout`).
    release
        Of this program.
    group, groups
        The group of the settings; all groups.
    saved_at
        The moment that it is of, Unix seconds.
    pause_s
        Time for which writes waited.
    watermarks
        By field `<incarnation>/<partition>`: the last message in effect.
    shards, generation
        How many the group has, where there are several, and the number of their layout.
    checksum
        SHA-256 of all other members.
    """

    format: int
    state_format: int
    release: str
    group: str
    groups: list[str]
    saved_at: float
    pause_s: float
    values: int
    watermarks: dict[str, int]
    parts: list[SnapshotPart]
    # Absent for one shard: the checksum of a manifest from before there were several stays.
    shards: int | msgspec.UnsetType = msgspec.UNSET
    generation: int | msgspec.UnsetType = msgspec.UNSET
    checksum: str = ""


class Snapshot(NamedTuple):
    """A snapshot that is whole, by its name in a folder."""

    name: str
    manifest: Manifest

    @property
    def bytes(self) -> int:
        """Size of its parts."""
        return sum(part.packed_bytes for part in self.manifest.parts)


class Progress(NamedTuple):
    """Progress of a command: values and bytes, and keys that have changed meanwhile."""

    values: int
    bytes: int
    changed: int = 0


Tell = Callable[[Progress], None]


def save(settings: Settings, folder: str, *, longest_pause_s: float, tell: Tell) -> Snapshot:
    """Save all state as it is at one moment, while others go on; returns the snapshot.

    What was written of it is removed if this fails or is broken off.

    Raises
    ------
    SnapshotRefused
        What changes cannot be read within the longest pause.
    CannotStart
        The state is not whole, or of another format.
    InvalidSetting, Unavailable, ObjectRefused
        Of Redis and of the folder.
    """
    settings = check_format(settings)
    refuse_while_moving(settings)
    objects = Objects(settings.buckets_dir)
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(2)}"
    writer = _PartWriter(objects, join(folder, name))
    try:
        with StateCopy(settings, longest_pause_s=longest_pause_s) as copy:
            for values in copy.values():
                writer.add(values)
                tell(Progress(writer.values, writer.bytes, copy.n_changed))
            moment = copy.moment
        writer.flush()
        manifest = _sealed(
            Manifest(
                FORMAT,
                layout.STATE_FORMAT,
                metadata.version("streaming-recommender"),
                settings.group,
                moment.groups,
                moment.at_s,
                round(moment.pause_s, 4),
                writer.values,
                moment.watermarks,
                writer.parts,
                settings.shards if settings.shards > 1 else msgspec.UNSET,
                settings.generation or msgspec.UNSET,
            )
        )
        with objects.writing(join(join(folder, name), MANIFEST)) as stream:
            stream.write(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    except BaseException:
        writer.remove()
        raise
    return Snapshot(name, manifest)


def listed(settings: Settings, folder: str) -> Iterator[Snapshot | tuple[str, str]]:
    """Snapshots in a folder, oldest first; of one that is not whole its name and why not.

    Raises
    ------
    ObjectNotFound, ObjectRefused
        There is nothing, or it may not be read.
    """
    objects = Objects(settings.buckets_dir)
    root = folder.rstrip("/") + "/"
    found: dict[str, bool] = {}
    for one in objects.find(root):
        name, slash, file = one.url.removeprefix(root).partition("/")
        if slash and (file == MANIFEST or file.startswith("part-")):
            found[name] = found.get(name, False) or file == MANIFEST
    for name, is_whole in sorted(found.items()):
        if not is_whole:
            yield name, "it was broken off: remove its files"
            continue
        try:
            yield Snapshot(name, read_manifest(objects, join(folder, name)))
        except RecommenderError as error:
            yield name, str(error)


def newest(settings: Settings, folder: str) -> str:
    """Name of the newest snapshot in a folder that is whole.

    Raises
    ------
    ObjectNotFound
        There is none.
    """
    names = [one.name for one in listed(settings, folder) if isinstance(one, Snapshot)]
    if not names:
        raise ObjectNotFound(f"no snapshot in {folder}")
    return names[-1]


def restore(settings: Settings, folder: str, name: str, *, replaces: bool, tell: Tell) -> Snapshot:
    """Make the state what it was at the moment of a snapshot; workers then apply what came since.

    All parts are read and checked before anything is written. If this fails later or is broken off,
    no state is left. Shards take none of the deltas that Kafka has: what they lacked at that moment
    is in outboxes of the snapshot, and the rest comes anew from the events.

    Raises
    ------
    SnapshotRefused
        The snapshot is not whole, is of another group or format, there is state already (unless it
        is to be replaced), or a process writes state meanwhile.
    InvalidSetting, Unavailable, ObjectNotFound, ObjectRefused
        Of Redis and of the folder.
    """
    objects, place = Objects(settings.buckets_dir), join(folder, name)
    manifest = read_manifest(objects, place)
    _check_fits(manifest, settings)
    settings = settings.on_shards(settings.shards, _generation(manifest))
    if settings.shards > 1:
        ensure_topics(settings)
    n_values = sum(len(_read_part(objects, place, part)) for part in manifest.parts)
    if n_values != manifest.values:
        raise SnapshotRefused(f"{place} is damaged: {n_values} values of {manifest.values}")
    skipped = skipped_deltas(settings, last_deltas(settings))
    done = size = 0
    what = f"recommender snapshot restore of {name}"
    with StateReplacement(settings, manifest.groups, what=what, replaces=replaces) as state:
        for part in manifest.parts:
            values = _read_part(objects, place, part)
            state.write(values)
            done, size = done + len(values), size + part.packed_bytes
            tell(Progress(done, size))
        state.write(skipped)
        state.finish()
    return Snapshot(name, manifest)


def read_manifest(objects: Objects, place: str) -> Manifest:
    """The manifest of the snapshot at a place.

    Raises
    ------
    SnapshotRefused
        It is damaged, or of another version of this program.
    ObjectNotFound, ObjectRefused, Unavailable
        Of the folder.
    """
    url = join(place, MANIFEST)
    text = _content(objects, url, MAX_MANIFEST_BYTES)
    try:
        version = msgspec.json.decode(text, type=_Version).format
        if version != FORMAT:
            raise SnapshotRefused(
                f"{place} is a snapshot in format {version}, and this release reads format "
                f"{FORMAT}: restore it with the release that made it, or rebuild from Kafka"
            )
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SnapshotRefused(f"{url} is damaged: {error}") from error
    if _sealed(manifest).checksum != manifest.checksum:
        raise SnapshotRefused(f"{url} is damaged: its checksum is another")
    return manifest


class _Version(msgspec.Struct):
    format: int


class _PartWriter:
    """Collects values, and writes them as parts."""

    def __init__(self, objects: Objects, place: str) -> None:
        self.parts: list[SnapshotPart] = []
        self.values = 0
        self.bytes = 0
        self._objects, self._place = objects, place
        self._collected: list[SavedValue] = []
        self._size = 0

    def add(self, values: list[SavedValue]) -> None:
        self._collected += values
        self.values += len(values)
        self._size += sum(
            len(value.key) + 16 + sum(map(len, value.members)) + 5 * len(value.members)
            for value in values
        )
        if self._size >= PART_BYTES:
            self.flush()

    def flush(self) -> None:
        if not self._collected:
            return
        content = msgspec.msgpack.encode(self._collected)
        self._collected, self._size = [], 0
        packed = zlib.compress(content, LEVEL)
        name = f"part-{len(self.parts) + 1:06}"
        digest = hashlib.sha256(packed).hexdigest()
        # Named before it is there, so that it is removed if this is broken off.
        self.parts.append(SnapshotPart(name, len(content), len(packed), digest))
        with self._objects.writing(join(self._place, name)) as stream:
            stream.write(packed)
        self.bytes += len(packed)

    def remove(self) -> None:
        """Remove what was written, as far as the folder lets it."""
        for name in [MANIFEST, *(part.name for part in self.parts)]:
            with contextlib.suppress(RecommenderError):
                self._objects.remove(join(self._place, name))


def _read_part(objects: Objects, place: str, part: SnapshotPart) -> list[SavedValue]:
    """Values of a part; raises `SnapshotRefused` if it is not what the manifest says."""
    url = join(place, part.name)
    if "/" in part.name or not 0 <= part.bytes <= MAX_PART_BYTES:
        raise SnapshotRefused(f"{place} names a part that cannot be one: {part.name[:100]!r}")
    packed = _content(objects, url, part.packed_bytes)
    if len(packed) != part.packed_bytes or hashlib.sha256(packed).hexdigest() != part.sha256:
        raise SnapshotRefused(f"{url} is damaged: its size or checksum is another")
    unpacking = zlib.decompressobj()
    try:
        content = unpacking.decompress(packed, part.bytes + 1)
        values = _values.decode(content)
    except (zlib.error, msgspec.MsgspecError) as error:
        raise SnapshotRefused(f"{url} is damaged: {error}") from error
    if len(content) != part.bytes or not unpacking.eof:
        raise SnapshotRefused(f"{url} is damaged: it unpacks to another size")
    return values


def _content(objects: Objects, url: str, most_bytes: int) -> bytes:
    with objects.open(url) as stream:
        content = stream.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise SnapshotRefused(f"{url} is damaged: it has more than {most_bytes} bytes")
    return content


def _generation(manifest: Manifest) -> int:
    return 0 if manifest.generation is msgspec.UNSET else manifest.generation


def _check_fits(manifest: Manifest, settings: Settings) -> None:
    if manifest.state_format != layout.STATE_FORMAT:
        raise SnapshotRefused(
            f"the snapshot holds state in format {manifest.state_format} (release "
            f"{manifest.release}), and this release reads format {layout.STATE_FORMAT}: restore it "
            "with that release, or have this one learn from Kafka with `recommender rebuild`"
        )
    if manifest.group != settings.group:
        raise SnapshotRefused(
            f"the snapshot is of group {manifest.group}, and RECOMMENDER_GROUP says "
            f"{settings.group}"
        )
    shards = 1 if manifest.shards is msgspec.UNSET else manifest.shards
    if shards != settings.shards:
        raise SnapshotRefused(
            f"the snapshot is of a group of {shards} shard(s), and RECOMMENDER_SHARDS="
            f"{settings.shards}: restore it onto {shards}, then change the number with "
            "`recommender reshard`"
        )


def _sealed(manifest: Manifest) -> Manifest:
    """The manifest with the checksum of its other members."""
    rest: Any = msgspec.structs.replace(manifest, checksum="")
    digest = hashlib.sha256(msgspec.json.encode(rest, order="sorted")).hexdigest()
    return msgspec.structs.replace(manifest, checksum=digest)

"""The files of a source: an object, the first level of a folder, or the matches of a pattern."""

from __future__ import annotations

import re
from typing import NamedTuple

from models.errors import ObjectNotFound, UnreadableRecording
from streams.object_store import Object, Objects

MAX_FILES = 10_000
MAX_SHOWN = 3

_WILD = re.compile(r"[*?]")


class Selection(NamedTuple):
    """The objects to read, in the order of their keys, and notes on those that were left out."""

    files: tuple[Object, ...]
    notes: tuple[str, ...]


def select(objects: Objects, source: str) -> Selection:
    """List the objects of a source.

    A folder gives the objects directly in it, as in Amazon Personalize; a pattern such as `a/*/b*`
    or `a/**` (any number of folders) gives its matches. Empty objects are skipped, as are hidden
    ones and markers such as `_SUCCESS` (names that begin with a dot or an underscore).

    Raises
    ------
    UnreadableRecording
        There is no data, or there are too many files.
    ObjectNotFound, ObjectRefused, Unavailable
        As `streams.object_store` says.
    """
    pattern = _pattern(objects, source)
    folder = f"{source.rstrip('/')}/"
    start = _fixed(source) if pattern else source
    found: list[Object] = []
    deeper: list[str] = []
    for each in objects.find(start):
        is_named = each.url == source
        if not each.size or (not is_named and _is_hidden(each.url.removeprefix(start))):
            continue
        if pattern and not pattern.fullmatch(each.url):
            continue
        if not (is_named or pattern) and "/" in each.url.removeprefix(folder):
            deeper.append(each.url)
            continue
        found.append(each)
        if len(found) > MAX_FILES:
            raise UnreadableRecording(f"{source}: more than {MAX_FILES} files")
    if not found and deeper:
        raise UnreadableRecording(
            f"{source}: nothing in it but subfolders, which are not read: name {folder}** to read"
            f" all below it, such as {deeper[0]}"
        )
    if not found:
        raise UnreadableRecording(f"{source}: nothing in it")
    notes: tuple[str, ...] = ()
    if deeper:
        n = len(deeper)
        notes = (f"left out: {n} files in subfolders, such as {deeper[0]}; {folder}** reads all",)
    return Selection(tuple(found), notes)


def _pattern(objects: Objects, source: str) -> re.Pattern[str] | None:
    """Regular expression of the URLs that match a source; None if it is no pattern."""
    if not _WILD.search(source):
        return None
    try:
        # An object may have a star in its name.
        objects.size(source)
    except ObjectNotFound:
        parts = re.split(r"(\*\*/?|\*|\?)", source)
        meanings = {"**": ".*", "**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
        return re.compile("".join(meanings.get(part, re.escape(part)) for part in parts))
    return None


def _fixed(pattern: str) -> str:
    """The deepest folder above all matches of a pattern."""
    fixed = _WILD.split(pattern, maxsplit=1)[0]
    folder, slash, _ = fixed.rpartition("/")
    return f"{folder}{slash}" or "."


def _is_hidden(below: str) -> bool:
    """True if a part of a key is that of a hidden object or a marker.

    >>> _is_hidden("out/_SUCCESS"), _is_hidden("_temporary/0/a.csv"), _is_hidden("day=1/a.csv")
    (True, True, False)
    """
    return any(part[:1] in {".", "_"} for part in below.split("/"))

"""Which objects a source names: one, the first level of a folder, or those that match a pattern."""

from __future__ import annotations

import re
from typing import NamedTuple

from models.errors import ObjectNotFound, UnreadableRecording
from streams.object_store import Object, Objects

MAX_FILES = 10_000
MAX_SHOWN = 3

_WILD = re.compile(r"[*?]")


class Selection(NamedTuple):
    """The objects to read, in the order of their keys, and what was left out, for people."""

    files: tuple[Object, ...]
    notes: tuple[str, ...]


def select(objects: Objects, source: str) -> Selection:
    """The objects of a source.

    Of a folder those directly in it, as Amazon Personalize does; with a pattern such as `a/*/b*`
    or `a/**`, whose two stars stand for any number of folders, those it fits. Empty objects and
    those that other tools hide or leave as a mark (names that begin with a dot or an underscore,
    as `_SUCCESS`) are no data.

    Raises
    ------
    UnreadableRecording
        When there is no data, or too many files.
    ObjectNotFound, ObjectRefused, Unavailable
        As `streams.object_store` says.
    """
    pattern = _pattern(objects, source)
    folder = f"{source.rstrip('/')}/"
    start = _fixed(source) if pattern else source
    found: list[Object] = []
    deeper: list[str] = []
    for each in objects.find(start):
        is_told = each.url == source
        if not each.size or (not is_told and _is_hidden(each.url.removeprefix(start))):
            continue
        if pattern and not pattern.fullmatch(each.url):
            continue
        if not (is_told or pattern) and "/" in each.url.removeprefix(folder):
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
    """What the URLs of a pattern's objects are; `None` where the source is no pattern."""
    if not _WILD.search(source):
        return None
    try:
        # An object may have stars in its name.
        objects.size(source)
    except ObjectNotFound:
        parts = re.split(r"(\*\*/?|\*|\?)", source)
        meanings = {"**": ".*", "**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
        return re.compile("".join(meanings.get(part, re.escape(part)) for part in parts))
    return None


def _fixed(pattern: str) -> str:
    """The folder that all objects of a pattern lie in."""
    fixed = _WILD.split(pattern, maxsplit=1)[0]
    folder, slash, _ = fixed.rpartition("/")
    return f"{folder}{slash}" or "."


def _is_hidden(below: str) -> bool:
    """Whether a part of a key is one that other tools hide or leave as a mark.

    >>> _is_hidden("out/_SUCCESS"), _is_hidden("_temporary/0/a.csv"), _is_hidden("day=1/a.csv")
    (True, True, False)
    """
    return any(part[:1] in {".", "_"} for part in below.split("/"))

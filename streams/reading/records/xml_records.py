"""Records of an XML document, one at a time: items of RSS, entries of Atom, or elements at a path.

A document may have any size; what is open of it at once is bounded. Document types are refused, and
with them entities of one's own, which could grow without bound or name other files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any
from xml.parsers import expat

from models.errors import UnreadableRecording
from streams.reading.records.text_streams import is_decoded

MAX_RECORD_CHARS = 1024 * 1024
"""Longest text of one record."""

MAX_MARKUP_BYTES = 1024 * 1024
"""Longest tag, comment or the like."""

MAX_DEPTH = 64
"""Most elements within each other."""

MAX_ELEMENTS = 10_000
"""Most elements of one record."""

RECORDS = (("rss", "channel", "item"), ("feed", "entry"), ("RDF", "item"))
"""Paths of the records in RSS 2.0, Atom and RSS 1.0."""

GOOGLE = "http://base.google.com/ns/1.0"
"""Namespace of Google's attributes of products: they come before elements of the same name."""

_BEGINNING = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*<(?:\?xml|!--|!DOCTYPE\s+(?!html)|rss|feed|[\w:]+[\s>])"
)
_DECLARED = re.compile(rb"\s*<\?xml[^>]{0,200}?encoding=[\"']([A-Za-z0-9._-]{1,40})[\"']")


def is_xml(head: bytes) -> bool:
    """True if a file that begins so is XML and no page of HTML.

    >>> is_xml(b'<?xml version="1.0"?><rss>'), is_xml(b"<!DOCTYPE html><html>"), is_xml(b"a,b")
    (True, False, False)
    """
    text = head.replace(b"\0", b"").lstrip(b"\xff\xfe\xef\xbb\xbf")
    return bool(_BEGINNING.match(text)) and b"<html" not in text[:1000].lower()


def declared_encoding(head: bytes) -> str:
    """The encoding that a document of eight-bit letters declares; "" without one.

    >>> declared_encoding(b'<?xml version="1.0" encoding="ISO-8859-1"?>')
    'ISO-8859-1'
    """
    found = _DECLARED.match(head.removeprefix(b"\xef\xbb\xbf"))
    name = found[1].decode() if found else ""
    # What can be read as ASCII up to here is no UTF-16, whatever it says.
    return "" if name.lower().startswith("utf") else name


def records_of_xml(
    texts: Iterator[str], keys: Sequence[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Records by number from 1: the texts of their elements by name, without namespace.

    An element with others in it is a mapping, one that comes several times a list. An empty element
    with an address has that, as a `link` of Atom.

    Parameters
    ----------
    keys
        Path of the elements that are records, as in catalog, product; empty for `RECORDS`.

    Raises
    ------
    UnreadableRecording
        The document breaks off, is malformed, has a document type or no record, or one is too long.

    Examples
    --------
    >>> feed = '<feed><entry><id>a</id></entry><entry><id>b</id><x>1</x><x>2</x></entry></feed>'
    >>> [record for _, record in records_of_xml(iter([feed]), ())]
    [{'id': 'a'}, {'id': 'b', 'x': ['1', '2']}]
    """
    tree = _Tree((tuple(keys),) if keys else RECORDS)
    number = fed = 0
    for text in texts:
        if not is_decoded(text):
            raise UnreadableRecording(
                f"not text of its encoding after record {number}: name it with --encoding"
            )
        fed += len(text.encode())
        tree.feed(text, fed, is_last=False)
        for record in tree.taken():
            number += 1
            yield number, record
    tree.feed("", fed, is_last=True)
    if not number:
        names = ".".join(keys) or "rss.channel.item or feed.entry"
        raise UnreadableRecording(
            f"no element {names}: name the path of the records with --records, as in"
            f" {'.'.join(tree.seen)}"
        )


class _Element:
    """An open element: its name, its children by name, and its text so far."""

    __slots__ = ("attributes", "children", "google", "name", "parts")

    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        self.name = name
        self.attributes = attributes
        self.children: dict[str, Any] = {}
        self.google: set[str] = set()
        self.parts: list[str] = []

    def add(self, name: str, value: Any, *, is_google: bool) -> None:  # noqa: ANN401  any record
        """Add a child; what is Google's comes before others of its name."""
        if is_google and name not in self.google:
            self.google.add(name)
            self.children[name] = value
        elif not is_google and name in self.google:
            return
        elif name not in self.children:
            self.children[name] = value
        else:
            known = self.children[name]
            self.children[name] = [*(known if isinstance(known, list) else [known]), value]

    def value(self) -> Any:  # noqa: ANN401  any record
        """A mapping of the children, or else the text, or else the address."""
        if self.children:
            return self.children
        return "".join(self.parts).strip() or self.attributes.get("href", "")


class _Tree:
    """The elements that are open, and the records that were closed."""

    def __init__(self, paths: Sequence[tuple[str, ...]]) -> None:
        self._paths = paths
        self._names: list[str] = []
        self._open: list[_Element] = []
        self._ready: list[dict[str, Any]] = []
        self._chars = self._n_elements = self._n_records = 0
        self.seen: list[str] = []
        self._parser = expat.ParserCreate("utf-8", namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.EntityDeclHandler = self._refuse

    def feed(self, text: str, fed: int, *, is_last: bool) -> None:
        """Parse another part of the document; `fed` counts the bytes up to its end."""
        try:
            self._parser.Parse(text, is_last)
        except expat.ExpatError as error:
            raise UnreadableRecording(
                f"malformed XML after record {self._n_records}: {error}"
            ) from error
        if not is_last and fed - max(0, self._parser.CurrentByteIndex) > MAX_MARKUP_BYTES + len(
            text.encode()
        ):
            raise UnreadableRecording(
                f"markup of more than {MAX_MARKUP_BYTES} bytes after record {self._n_records}"
            )

    def taken(self) -> list[dict[str, Any]]:
        """The records that were closed since the last call."""
        taken, self._ready = self._ready, []
        return taken

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition(" ")[2]
        if len(self._names) >= MAX_DEPTH:
            raise UnreadableRecording(f"more than {MAX_DEPTH} elements within each other")
        self._names.append(name)
        if len(self._names) > len(self.seen) < 4:
            self.seen.append(name)
        if self._open:
            self._grow(sum(map(len, attributes.values())), 1)
            self._open.append(_Element(name, attributes))
        elif tuple(self._names) in self._paths:
            self._chars = self._n_elements = 0
            record = _Element(name, {})
            record.children.update((key.rpartition(" ")[2], one) for key, one in attributes.items())
            self._open.append(record)

    def _end(self, tag: str) -> None:
        self._names.pop()
        if not self._open:
            return
        closed = self._open.pop()
        if not self._open:
            self._n_records += 1
            self._ready.append(closed.children)
            return
        is_google = tag.startswith(f"{GOOGLE} ")
        self._open[-1].add(closed.name, closed.value(), is_google=is_google)

    def _text(self, text: str) -> None:
        if self._open:
            self._grow(len(text), 0)
            self._open[-1].parts.append(text)

    def _grow(self, chars: int, elements: int) -> None:
        self._chars += chars
        self._n_elements += elements
        if self._chars > MAX_RECORD_CHARS or self._n_elements > MAX_ELEMENTS:
            raise UnreadableRecording(
                f"record {self._n_records + 1} has more than {MAX_RECORD_CHARS} characters or"
                f" {MAX_ELEMENTS} elements"
            )

    def _refuse(self, *_: object) -> None:
        raise UnreadableRecording(
            "it has a document type (<!DOCTYPE), which is not read: remove it"
        )

"""XML: records of feeds in bounded memory, and what hostile documents are refused for."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import UnreadableRecording
from streams.object_store import Objects
from streams.reading.read_options import ReadOptions
from streams.reading.recognition import recognise
from streams.reading.records import xml_records
from streams.reading.records.xml_records import records_of_xml

pytestmark = pytest.mark.unit

BOMB = "<!DOCTYPE rss [" + '<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
) + "]><rss><channel><item><id>&j;</id></item></channel></rss>"  # fmt: skip
FILE = (
    '<!DOCTYPE rss [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    "<rss><channel><item><id>&x;</id></item></channel></rss>"
)

XML_TEXT = st.text(
    st.characters(
        codec="utf-8", exclude_categories=["Cs", "Cc", "Cn"], exclude_characters="\ufffe\uffff"
    ),
    min_size=1,
    max_size=30,
).map(str.strip).filter(bool)  # fmt: skip


def in_pieces(text: str, size: int) -> Iterator[str]:
    """A text in pieces of a size."""
    return (text[at : at + size] for at in range(0, len(text), size))


@given(st.lists(st.dictionaries(st.sampled_from("abc"), XML_TEXT, min_size=1), min_size=1),
       st.integers(1, 50))  # fmt: skip
def test_any_records_are_read_as_they_were_written(
    records: list[dict[str, str]], size: int
) -> None:
    """However the document arrives in pieces."""
    items = "".join(
        "<item>" + "".join(f"<{k}>{escape(v)}</{k}>" for k, v in one.items()) + "</item>"
        for one in records
    )
    text = f"<rss><channel><title>x</title>{items}</channel></rss>"

    found = list(records_of_xml(in_pieces(text, size), ()))

    assert found == list(enumerate(records, 1))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "a document type"),
        (FILE, "a document type"),
        ("<rss><channel><item><id>a</id></item>", "malformed XML after record 1"),
        ("<rss><channel><item>&nbsp;</item></channel></rss>", "malformed XML after record 0"),
        ("<catalog><product><id>a</id></product></catalog>", "--records, as in catalog.product"),
        ("<a>" * 1000, "more than 64 elements"),
        ("<feed><entry>" + "<a/>" * 20_000, "10000 elements"),
        ("<feed><entry><a>" + "x" * 2_000_000, "more than 1048576 characters"),
        ('<feed><entry><a b="' + "x" * 4_000_000, "markup of more than"),
        ("<feed><!-- " + "x" * 4_000_000, "markup of more than"),
        ("<feed><entry><a>\udcff</a>", "not text of its encoding"),
    ],
)
def test_hostile_documents_are_refused(text: str, reason: str) -> None:
    """With the reason, before they take memory."""
    with pytest.raises(UnreadableRecording, match=reason):
        list(records_of_xml(in_pieces(text, 100_000), ()))


def test_memory_does_not_grow_with_the_document() -> None:
    """30 MB of it take no more than a few records."""

    def feed() -> Iterator[str]:
        yield "<feed>"
        for _ in range(300):
            yield "<entry><id>1</id><title>" + "x" * 99_000 + "</title></entry>"
        yield "</feed>"

    tracemalloc.start()
    try:
        n = sum(1 for _ in records_of_xml(feed(), ()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert n == 300
    assert peak < 5_000_000


def test_the_path_of_records_is_an_option(tmp_path: Path) -> None:
    """Attributes of a record are values of it; the encoding is the declared one."""
    text = '<?xml version="1.0" encoding="ISO-8859-1"?><c><p id="1"><name>für</name></p></c>'
    (tmp_path / "a.xml").write_bytes(text.encode("latin-1"))

    found = recognise(Objects(), str(tmp_path / "a.xml"), ReadOptions(records=("c", "p")), "items")

    assert found.sample == ({"id": "1", "name": "für"},)
    assert (found.shape, found.unit) == ("xml", "record")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_xml_of_each_encoding_is_seen(tmp_path: Path, encoding: str) -> None:
    """By its beginning, whatever the file is called."""
    (tmp_path / "a.csv").write_bytes("<feed><entry><id>ä</id></entry></feed>".encode(encoding))

    found = recognise(Objects(), str(tmp_path / "a.csv"), ReadOptions(), "items")

    assert found.sample == ({"id": "ä"},)
    assert not xml_records.is_xml(b"<!doctype html>\n<html>")

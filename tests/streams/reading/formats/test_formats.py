"""Formats of files: every command reads the same events, or refuses a file with the same error."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.errors import InvalidEvent
from models.events import PutEvents
from models.settings import Settings
from ops.embedded_servers import start_broker
from streams.kafka.topics import ensure_topics
from streams.reading.formats import registry
from streams.reading.formats.file_format import Format
from streams.reading.read_options import ReadOptions
from streams.recordings.recorded_events import read_events
from tests.servers import ROOT
from tests.streams.reading.formats.catalogue_samples_fixtures import RSS, SHOPIFY_CSV, SHOPIFY_JSON
from tests.streams.reading.formats.format_samples_fixtures import (
    ORDERS,
    VISITS,
    WRITTEN,
    Written,
    ga4_records,
    json_lines,
    mind,
)
from tests.streams.reading.reading_commands_fixtures import NAMES, File, ReadingCommands

NOW_S = 1_800_000_000.0
TABLES = {
    "google-merchant": "Google Merchant's product data): items",
    "movielens-movies": "MovieLens movies.dat): items",
    "movielens-users": "MovieLens users.dat): users",
    "shopify-products": "Shopify's products as JSON): items",
    "shopify-products-csv": "Shopify's export of products): items",
}
"""Formats of other datasets than interactions."""

SMALL = {
    "movielens-movies": File("movies.dat", b"1::Toy Story (1995)::Animation|Comedy\n"),
    "movielens-users": File("users.dat", b"1::F::1::10::48067\n"),
    "google-merchant": File("feed.xml", RSS.encode()),
    "shopify-products": File("products.json", SHOPIFY_JSON.encode()),
    "shopify-products-csv": File("products.csv", SHOPIFY_CSV.encode()),
}
HEAD = b"user_id,item_id,timestamp\n"
GOOD = "".join(f"u{n},i{n},{1_600_000_000 + n}\n" for n in range(4))
BAD = {
    "fields": (
        ",i,1600000000\nu,NaN,1600000000\nu,i,soon\n",
        ("USER_ID: empty", "ITEM_ID: empty", "TIMESTAMP: not a time"),
    ),
    "limits": (
        f"{'x' * 257},i,1600000000\nu,i,12\nu,i,4102444800\n",
        (
            "USER_ID: more than 256 characters",
            "TIMESTAMP: before 1990",
            "TIMESTAMP: in the future",
        ),
    ),
    "lines": (
        '"u,i,1600000000\nu,i\nu,\x01,1600000000\n',
        ("a quote that does not close", "not 3 columns", "ITEM_ID: control characters"),
    ),
}
UNREADABLE = {
    "damaged": (
        File("a.csv", gzip.compress(HEAD + random.Random(7).randbytes(9999).hex().encode())[:-9]),
        "damaged: ",
    ),
    "avro": (File("a.csv", b"Obj\x01" + bytes(64)), "is an Avro file: convert it to"),
    "nothing": (File("a.csv", b"\n\n"), "nothing in it"),
    "lists": (
        File(
            "a.jsonl",
            b'{"user": "u", "time": 1600000000, "a": [{"item": "i"}], "b": [{"sku": "k"}]}\n',
        ),
        "items may be those of a or b: name the list with --each",
    ),
    "no-good-row": (File("a.csv", HEAD + b"u,i,soon\n"), "line 2: TIMESTAMP: not a time"),
}


def of_schema(written: Written) -> tuple[str, ...]:
    """Columns of a schema beside the required ones: EVENT_TYPE, if the events have types."""
    return () if {one.kind for one in written.events} == {"interaction"} else ("EVENT_TYPE",)


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReadingCommands]:
    """The commands beside one broker."""
    files = {
        **{name: File(one.file, one.content(), of_schema(one)) for name, one in WRITTEN.items()},
        **SMALL,
        **{name: File("a.csv", HEAD + (text + GOOD).encode()) for name, (text, _) in BAD.items()},
        **{name: file for name, (file, _) in UNREADABLE.items()},
    }
    folder = tmp_path_factory.mktemp("commands")
    broker = start_broker(folder)
    try:
        settings = Settings(
            kafka=broker.address, data_dir=folder, partitions=1, import_bad_share=0.5
        )
        ensure_topics(settings)
        yield ReadingCommands(settings, folder, files)
    finally:
        broker.stop()


@pytest.mark.parametrize("command", NAMES)
@pytest.mark.parametrize("name", WRITTEN)
def test_every_command_reads_every_format(
    commands: ReadingCommands, name: str, command: str
) -> None:
    """Each item is an event, with the user and the time of its record."""
    taken = commands.take(command, name)

    assert (taken.error, taken.rows) == ("", WRITTEN[name].rows())
    assert taken.bad == dict(WRITTEN[name].bad)


@pytest.mark.parametrize("command", NAMES)
@pytest.mark.parametrize("name", SMALL)
def test_files_of_other_datasets_are_refused(
    commands: ReadingCommands, name: str, command: str
) -> None:
    """A file of items or users has no events; the error names its dataset."""
    taken = commands.take(command, name)

    error = f"{name} ({TABLES[name]}, and not interactions"
    assert error in taken.error


@pytest.mark.parametrize("command", NAMES)
@pytest.mark.parametrize("name", BAD)
def test_bad_rows_have_the_same_reasons(commands: ReadingCommands, name: str, command: str) -> None:
    """Every command reports the same lines and reasons."""
    taken = commands.take(command, name)

    assert [row[0] for row in taken.rows] == ["u0", "u1", "u2", "u3"]
    assert sorted(taken.bad) == ["line 2", "line 3", "line 4"]
    for (_, why), reason in zip(sorted(taken.bad.items()), BAD[name][1], strict=True):
        assert why.startswith(reason)


@pytest.mark.parametrize("command", NAMES)
@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_files_have_the_same_error_everywhere(
    commands: ReadingCommands, name: str, command: str
) -> None:
    """Of every command it is an error, never an empty success."""
    taken = commands.take(command, name)

    assert taken.rows == []
    if (name, command) == ("no-good-row", "prepare"):
        # Its report counts reasons, and has the lines after them.
        assert "1  TIMESTAMP: not a time  (line 2)" in taken.error
    else:
        assert UNREADABLE[name][1] in taken.error


def good_and_bad(
    path: Path, options: ReadOptions | None = None
) -> tuple[list[PutEvents], list[str]]:
    """The events of a file, as `replay` and `evaluate` read them, and the errors of bad rows."""
    rows = [row for _, row in read_events(path, now_s=NOW_S, options=options)]
    good = [row for row in rows if isinstance(row, PutEvents)]
    return good, [str(row) for row in rows if isinstance(row, InvalidEvent)]


def row_of(message: PutEvents) -> tuple[str, str, str, float]:
    """User, type, item and time of a message of one event."""
    (event,) = message.event_list
    assert message.user_id is not None
    assert event.item_id is not None
    return message.user_id, event.event_type, event.item_id, event.sent_at


def test_sessions_of_ga4_are_kept(tmp_path: Path) -> None:
    """Also of Parquet: its nested lists are those of JSON."""
    for name in ("ga4", "ga4-parquet"):
        path = tmp_path / WRITTEN[name].file
        path.write_bytes(WRITTEN[name].content())
        good, _ = good_and_bad(path)
        assert {message.session_id for message in good} == {f"{one.user}.17" for one in VISITS}


def test_lists_of_mind_are_impressions(tmp_path: Path) -> None:
    """The list around a click is its impression, of any length; without a click there is none."""
    many = " ".join(f"N{n}-{int(n in {150, 400})}" for n in range(100, 500))
    (tmp_path / "behaviors.tsv").write_text(
        mind() + f"4\tu4\t11/14/2023 10:20:00 PM\t\t{many}\n5\tu5\t11/14/2023 10:20:00 PM\t\tN1-0\n"
    )

    good, bad = good_and_bad(tmp_path / "behaviors.tsv")

    assert good[0].event_list[0].impression == ["N7", "N1", "N6"]
    for message in good[-2:]:
        event = message.event_list[0]
        assert event.impression is not None
        assert len(event.impression) == 25
        assert event.item_id in event.impression
    assert bad == ["impressions: nothing was clicked"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"event_name": "page_view"}, "no item in it"),
        ({"event_name": "view_item_list", "items": [{"item_id": "a"}]}, "none of them chosen"),
        ({"event_name": "refund", "items": [{"item_id": "a"}]}, "taken back"),
        ({"event_name": "purchase", "items": [{"item_id": "(not set)"}]}, "no item in it"),
    ],
)
def test_records_without_item_events_are_bad_rows(
    tmp_path: Path, record: dict[str, Any], reason: str
) -> None:
    """Page views, shown lists and returns are no interactions."""
    whole = {"event_timestamp": "1700000000000000", "user_pseudo_id": "0.17", "items": []} | record
    (tmp_path / "events.jsonl").write_text(json_lines([whole, *ga4_records()]))

    good, bad = good_and_bad(tmp_path / "events.jsonl")

    assert sorted(map(row_of, good)) == WRITTEN["ga4"].rows()
    assert len(bad) == 1
    assert reason in bad[0]


def test_any_list_becomes_rows(tmp_path: Path) -> None:
    """A list that no format knows, named with `each`, has a row for each element."""
    orders = [
        {"customer": one.user, "when": one.at_s, "basket": [{"thing": item} for item in one.items]}
        for one in ORDERS
    ]
    (tmp_path / "orders.json").write_text(json.dumps(orders))
    columns = {"USER_ID": "customer", "ITEM_ID": "basket.thing", "TIMESTAMP": "when"}
    options = ReadOptions(list_column="basket")
    options = ReadOptions(
        list_column="basket",
        column_options=options.column_options._replace(fields=columns, event_type="purchase"),
    )

    good, bad = good_and_bad(tmp_path / "orders.json", options)

    assert (sorted(map(row_of, good)), bad) == (WRITTEN["shopify-orders"].rows(), [])


def test_every_format_is_documented_and_tested() -> None:
    """The one table has a row for each format that is known, and each has a small file here."""
    text = (ROOT / "docs" / "formats.md").read_text()
    rows = re.findall(r"^\| `([a-z0-9][a-z0-9-]*)` \|", text, re.MULTILINE)

    assert sorted(rows) == sorted(registry.FORMATS)
    assert {*rows} <= {*WRITTEN, *SMALL}


def test_a_registered_format_is_recognised_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One record, registered in one line, and its files are read like those of any format."""
    monkeypatch.setattr(registry, "FORMATS", dict(registry.FORMATS))
    registry.register(
        Format(
            "till",
            "a till's receipts",
            columns=("card", "paid_at", "lines"),
            fields={"USER_ID": "card", "ITEM_ID": "lines.article", "TIMESTAMP": "paid_at"},
            constants={"EVENT_TYPE": "purchase"},
            list_column="lines",
        )
    )
    receipt = {"card": "u1", "paid_at": NOW_S - 60, "lines": [{"article": "a"}, {"article": "b"}]}
    (tmp_path / "receipts.jsonl").write_text(json.dumps(receipt))

    good, _ = good_and_bad(tmp_path / "receipts.jsonl")

    assert [row_of(message) for message in good] == [
        ("u1", "purchase", "a", NOW_S - 60),
        ("u1", "purchase", "b", NOW_S - 60),
    ]


def test_the_name_of_a_format_is_unique() -> None:
    """A second format of a name, or one named like a shape, is an error of its author."""
    for name in ("otto", "csv"):
        with pytest.raises(ValueError, match=name):
            registry.register(Format(name, "taken"))

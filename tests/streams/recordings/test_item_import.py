"""Import of a catalogue on a real broker: what is sent, what is refused, and what is left alone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner, Result

from cli import main
from models.metadata_records import parse_record
from models.settings import Settings
from ops.embedded_servers import start_broker
from streams.kafka.consuming.offsets import end_offsets, messages
from streams.kafka.topics import Topics, ensure_topics
from streams.reading.read_options import ReadOptions
from streams.recordings.item_import import import_items, opened_items
from tests.streams.reading.formats.catalogue_samples_fixtures import MERCHANT_ITEMS, RSS


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a broker with topics."""
    folder = tmp_path_factory.mktemp("broker")
    started = start_broker(folder)
    try:
        settings = Settings(kafka=started.address, data_dir=folder, partitions=1)
        ensure_topics(settings)
        yield settings
    finally:
        started.stop()


class Catalogue:
    """Runs the command against a broker, and reads what it sent since."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._ends = self._now()
        self._environment = {
            "RECOMMENDER_KAFKA": settings.kafka,
            "RECOMMENDER_DATA_DIR": str(folder),
            "RECOMMENDER_IMPORT_BAD_SHARE": "0.5",
        }

    def run(self, *arguments: str) -> Result:
        """The command with these arguments."""
        return CliRunner().invoke(main, ["items", "import", *arguments], env=self._environment)

    def sent(self) -> list[tuple[str, Any]]:
        """Ids and properties of the records in the topic since this was made."""
        (partition,) = self._ends
        found = messages(self._settings, {partition: self._ends[partition]})
        records = [parse_record("items", one.key, one.value, now_s=time.time()) for one in found]
        return [(record.id, record.properties) for record in records]

    def _now(self) -> dict[Any, int]:
        return dict(end_offsets(self._settings, [Topics.of(self._settings).items]))


@pytest.fixture
def catalogue(broker: Settings, tmp_path: Path) -> Catalogue:
    """The command, with nothing sent yet."""
    return Catalogue(broker, tmp_path)


def test_decimal_numbers_are_numbers(catalogue: Catalogue, tmp_path: Path) -> None:
    """As Parquet files have prices; those of more digits than are exact are texts."""
    file = tmp_path / "items.parquet"
    duckdb.execute(
        "COPY (SELECT 'i1' AS item_id, 9.50::DECIMAL(9, 2) AS price, 7::DECIMAL(9, 2) AS stock, "
        f"0.123456789012345678::DECIMAL(38, 18) AS code) TO '{file}'"
    )

    done = catalogue.run(str(file))

    assert done.exit_code == 0, done.output
    expected = {"PRICE": 9.5, "STOCK": 7, "CODE": "0.123456789012345678"}
    assert dict(catalogue.sent()) == {"i1": expected}


def test_a_feed_is_sent(catalogue: Catalogue, tmp_path: Path) -> None:
    """Every item, once, as a record of the group."""
    (tmp_path / "feed.xml").write_text(RSS)

    done = catalogue.run(str(tmp_path / "feed.xml"))

    assert done.exit_code == 0, done.output
    assert "2 rows, 2 items sent, 0 rows refused" in done.stdout
    assert dict(catalogue.sent()) == MERCHANT_ITEMS


def test_a_preview_writes_nothing(catalogue: Catalogue, tmp_path: Path) -> None:
    """It shows columns and the first items, also without servers."""
    (tmp_path / "feed.xml").write_text(RSS)

    done = catalogue.run(str(tmp_path / "feed.xml"), "--preview", "--json")

    shown = json.loads(done.stdout)
    assert {"column": "price", "property": "PRICE", "why": "kept"} in shown["columns"]
    assert shown["items"][0] == {"itemId": "LAMP-1", "properties": MERCHANT_ITEMS["LAMP-1"]}
    assert "TITLE" in catalogue.run(str(tmp_path / "feed.xml"), "--preview").stdout
    assert catalogue.sent() == []


def test_refused_rows_are_all_reported(catalogue: Catalogue, tmp_path: Path) -> None:
    """Each with its line and the reason; the others are sent."""
    rows = "".join(f"{'' if n % 3 == 0 else f'i{n}'},{n}\n" for n in range(150))
    (tmp_path / "a.csv").write_text(f"item_id,price\n{rows}")

    done = catalogue.run(str(tmp_path / "a.csv"), "--report", str(tmp_path / "refused"), "--json")

    report = json.loads(done.stdout)
    assert (report["rows"], report["sent"], report["refused"]) == (150, 100, 50)
    lines = [json.loads(line) for line in (tmp_path / "refused").read_text().splitlines()]
    assert len(lines) == 50
    assert lines[1] == {"row": "line 5", "reason": "ITEM_ID: empty in column item_id"}
    assert catalogue.sent()[1] == ("i2", {"PRICE": 2})


def test_too_many_bad_rows_and_nothing_is_sent(catalogue: Catalogue, tmp_path: Path) -> None:
    """The error names the setting and the first reasons."""
    (tmp_path / "a.csv").write_text("item_id,price\n,1\n,2\nc,3\n")

    done = catalogue.run(str(tmp_path / "a.csv"))

    assert done.exit_code == 1
    assert "2 of 3 rows are bad" in done.stderr
    assert "line 2: ITEM_ID: empty" in done.stderr
    assert catalogue.sent() == []


def test_a_document_that_breaks_off_sends_nothing(catalogue: Catalogue, tmp_path: Path) -> None:
    """Its beginning was good, and yet it is not the catalogue."""
    (tmp_path / "feed.xml").write_text(RSS.removesuffix("</channel></rss>"))

    done = catalogue.run(str(tmp_path / "feed.xml"))

    assert done.exit_code == 1
    assert "malformed XML after record 2" in done.stderr
    assert catalogue.sent() == []


@pytest.mark.parametrize("doing", ["checking", "sending"])
def test_an_interrupted_import_is_run_again(
    broker: Settings, catalogue: Catalogue, tmp_path: Path, doing: str
) -> None:
    """What was under way is awaited and counted; the whole file takes effect the second time."""
    rows = "".join(f"i{n},{n}\n" for n in range(1200))
    (tmp_path / "a.csv").write_text(f"item_id,price\n{rows}")
    file = opened_items(str(tmp_path / "a.csv"), broker, ReadOptions(), now_s=time.time())

    def progress(what: str, _share: float) -> None:
        if what == doing:
            raise KeyboardInterrupt

    report = import_items(file, broker, progress=progress)

    assert not report.is_finished
    assert report.sent == len(catalogue.sent()) == (500 if doing == "sending" else 0)
    assert import_items(file, broker).sent == 1200
    assert dict(catalogue.sent()) == {f"i{n}": {"PRICE": n} for n in range(1200)}

"""Import of a catalogue: the items of a file are checked as a whole, and then sent to their topic.

1. `_survey` reads the file once: every row is checked, bad ones are reported, and types of
   columns are found. With too many bad rows nothing is sent.
2. `_send` reads it again and sends the good ones, of which a bounded number is under way at once.

A record replaces an older one of its item, so an import that was interrupted is simply run again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from models.errors import InvalidRecord, UnreadableRecording
from models.settings import Settings
from models.tokens import Receipt
from streams.kafka.producing.tracker import Tracker
from streams.object_store import Objects
from streams.reading.read_options import ReadOptions
from streams.recordings.interrupts import Interrupts
from streams.recordings.item_files import ItemFile

MAX_IN_FLIGHT = 2000
"""Most records that Kafka has not acknowledged."""

LINGER_MS = 20
REPORT_EVERY = 500
"""Rows between two reports of progress."""

MAX_SHOWN = 20
"""Refused rows that a report holds; all are given to `on_refused`."""

ReportShare = Callable[[str, float], None]
"""Called with what is being done, and the share of the file that is."""

ReportRefused = Callable[[str, str], None]
"""Called with the place of a refused row, as in `items.csv line 7`, and the reason."""


@dataclass
class ItemImportReport:
    """Result of an import.

    Attributes
    ----------
    rows
        Read, of which `refused` were bad; `first_refused` has places and reasons of the first.
    sent
        Records that Kafka has acknowledged.
    is_finished
        False if it was interrupted.
    """

    rows: int = 0
    refused: int = 0
    first_refused: list[tuple[str, str]] = field(default_factory=list)
    sent: int = 0
    seconds: float = 0.0
    is_finished: bool = False


def import_items(
    file: ItemFile,
    settings: Settings,
    *,
    on_refused: ReportRefused = lambda _place, _reason: None,
    progress: ReportShare = lambda _doing, _share: None,
) -> ItemImportReport:
    """Send the items of a file to the topic of the settings' group.

    Ctrl-C ends it in order: records under way are awaited.

    Raises
    ------
    UnreadableRecording
        The file is damaged, has no good row, or more bad ones than `settings.import_bad_share`;
        nothing was sent.
    Unavailable
        Kafka fails meanwhile: what it acknowledged takes effect, and the import can be run again.
    """
    started_s, report = time.monotonic(), ItemImportReport()
    try:
        _survey(file, report, on_refused, progress)
        _check(file, report, settings.import_bad_share)
        _send(file, settings, report, progress)
        report.is_finished = True
    except KeyboardInterrupt:
        pass
    report.seconds = time.monotonic() - started_s
    return report


def opened_items(
    source: str, settings: Settings, options: ReadOptions, *, now_s: float
) -> ItemFile:
    """The items of a source; raises as `ItemFile` does."""
    latest_s = now_s + settings.future_limit_s
    return ItemFile(Objects(settings.buckets_dir), source, options, latest_s=latest_s)


def _survey(
    file: ItemFile, report: ItemImportReport, on_refused: ReportRefused, progress: ReportShare
) -> None:
    done = 0

    def on_bytes(n: int) -> None:
        nonlocal done
        done += n

    for place, record in file.rows(on_bytes):
        report.rows += 1
        if isinstance(record, InvalidRecord):
            where = file.source.row_label(place)
            report.refused += 1
            on_refused(where, str(record))
            if len(report.first_refused) < MAX_SHOWN:
                report.first_refused.append((where, str(record)))
        else:
            file.learn_types(record[1])
        if report.rows % REPORT_EVERY == 0:
            progress("checking", min(1.0, done / max(1, file.n_bytes)))


def _check(file: ItemFile, report: ItemImportReport, allowed_share: float) -> None:
    location = file.source.location
    if not report.rows:
        raise UnreadableRecording(f"{location}: it has no row")
    if report.refused == report.rows or report.refused > allowed_share * report.rows:
        shown = "; ".join(f"{where}: {reason}" for where, reason in report.first_refused[:3])
        raise UnreadableRecording(
            f"{location}: {report.refused} of {report.rows} rows are bad, more than the share of"
            f" {allowed_share:g} that RECOMMENDER_IMPORT_BAD_SHARE allows; nothing was sent:"
            f" {shown}"
        )


def _send(
    file: ItemFile, settings: Settings, report: ItemImportReport, progress: ReportShare
) -> None:
    in_flight: deque[Future[Receipt]] = deque()

    def settle(n_left: int) -> None:
        while len(in_flight) > n_left:
            in_flight[0].result()
            in_flight.popleft()
            report.sent += 1

    rows = report.rows
    with Interrupts() as interrupts, Tracker(settings, linger_ms=LINGER_MS) as tracker:
        try:
            for number, (_, record) in enumerate(file.rows(), 1):
                if isinstance(record, InvalidRecord):
                    continue
                item_id, properties = record
                with interrupts.deferred():
                    one = (item_id, file.typed(properties))
                    in_flight.append(tracker.put_items(settings.group, [one]))
                    settle(MAX_IN_FLIGHT)
                if number % REPORT_EVERY == 0:
                    progress("sending", min(1.0, number / rows))
            with interrupts.deferred():
                settle(0)
        except KeyboardInterrupt:
            with interrupts.deferred():
                settle(0)
            raise

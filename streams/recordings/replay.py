"""Recorded interactions sent through the real path, as fast as Kafka takes them or paced.

Interrupted or failed, a replay leaves a note of the last line up to which Kafka has acknowledged
everything, and `resume` goes on there. What had been sent beyond that line is sent again; its
events have the same ids and so take effect once.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from models.errors import InvalidEvent, UnreadableRecording
from models.events import PutEvents
from models.settings import Settings
from models.tokens import Receipt
from streams.kafka.topics import Topics, topic_ids
from streams.kafka.tracker import Tracker
from streams.object_store import Object, Objects
from streams.reading.read_options import ReadOptions
from streams.recordings.recorded_events import (
    Owner,
    RecordedRow,
    Recording,
    group_into_messages,
    no_good_rows,
)

MAX_IN_FLIGHT = 5000
"""Messages that wait for acknowledgement; also, at most, what a resumed replay sends twice."""

MAX_BAD_ROWS = 20
LINGER_MS = 20
SAVE_EVERY_S = 1.0
BURST_S = 0.1
"""How much of its rate a replay catches up with after Kafka has held it up."""


@dataclass
class ReplayReport:
    """How far a replay has come; events and messages are those Kafka has acknowledged.

    `rows` counts the rows read, good and bad; `bad_rows` tells line and reason of the first 20.
    Everything up to `line` has been acknowledged; the replay started after `resumed_after_line`.
    When it is not finished, it was interrupted, and there is more to send.
    """

    rows: int = 0
    events: int = 0
    messages: int = 0
    n_bad_rows: int = 0
    bad_rows: list[tuple[int, str]] = field(default_factory=list)
    resumed_after_line: int = 0
    line: int = 0
    seconds: float = 0.0
    is_finished: bool = False

    def add_bad_row(self, line: int, error: InvalidEvent) -> None:
        """Count it, and keep its reason when it is one of the first."""
        self.n_bad_rows += 1
        if len(self.bad_rows) < MAX_BAD_ROWS:
            self.bad_rows.append((line, str(error)))


def replay(
    source: Path | str,
    settings: Settings,
    *,
    options: ReadOptions | None = None,
    as_: Owner = "users",
    rate: float | None = None,
    speed: float | None = None,
    events_per_message: int = 1,
    resume: bool = False,
    on_recognised: Callable[[Recording], None] | None = None,
    on_progress: Callable[[ReplayReport], None] | None = None,
    progress_bar: bool = True,
) -> ReplayReport:
    """What came of sending recorded events to the event topics.

    Ctrl-C ends it early but in order: what is under way is waited for and noted first.

    Parameters
    ----------
    source, options, as_
        As `streams.recordings.recorded_events` takes them.
    rate
        Events a second, at most; as many as Kafka takes when not given.
    speed
        Times the recorded pace: 2 sends an hour of recorded time in half an hour.
    events_per_message
        How many neighbouring rows of one session may share a message, 1 to 10.
    resume
        Go on where an earlier replay of the same files to the same topics ended, if it did not
        finish.
    on_recognised
        Told what the source was recognised as, before anything is sent.
    on_progress
        Told about every second how far it is, and at the end.
    progress_bar
        Whether to draw one when standard error is a terminal.

    Raises
    ------
    Unavailable
        When Kafka fails on the way, after noting how far it came.
    UnreadableRecording
        When the source is in no known format, is damaged, or has no good row.
    """
    pace = _Pacer(rate, speed)
    objects = Objects(settings.buckets_dir)
    recording = Recording(str(source), options or ReadOptions(), objects)
    if on_recognised is not None:
        on_recognised(recording)
    note = _ResumePoint.of(recording, settings, as_)
    start = note.load() if resume else 0
    report = ReplayReport(resumed_after_line=start, line=start)
    rows = recording.events(
        now_s=time.time(), as_=as_, future_limit_s=settings.future_limit_s, after=start
    )
    with (
        closing(rows),
        closing(Tracker(settings, linger_ms=LINGER_MS)) as tracker,
        tqdm(unit=" events", disable=None if progress_bar else True) as bar,
    ):

        def tell() -> None:
            bar.update(report.events - bar.n)
            if on_progress is not None:
                on_progress(report)

        sending = _Unacknowledged(report, note, tell)
        try:
            for message, completes in group_into_messages(_good(rows, report), events_per_message):
                pace.wait(message, sending.watch)
                sending.send(tracker, message, completes)
            sending.settle(0)
            report.is_finished = True
        except KeyboardInterrupt:
            sending.settle(0)
        finally:
            sending.end()
    if report.is_finished and report.n_bad_rows == report.rows and not start:
        raise no_good_rows(recording, report.bad_rows)
    return report


class _Unacknowledged:
    """The messages under way, oldest first, and the note of how far the acknowledged ones go."""

    def __init__(self, report: ReplayReport, note: _ResumePoint, tell: Callable[[], None]) -> None:
        self._report = report
        self._note = note
        self._tell = tell
        self._under_way: deque[tuple[Future[Receipt], int, int]] = deque()
        self._started_s = time.monotonic()
        self._saved_s = self._started_s

    def send(self, tracker: Tracker, message: PutEvents, completes: int) -> None:
        """Send it, once there are few enough under way."""
        try:
            future = tracker.put_events(message)
        except InvalidEvent as error:  # too large, once its rows stand together
            self._report.add_bad_row(completes, error)
            return
        self._under_way.append((future, len(message.event_list), completes))
        self.watch()

    def watch(self) -> None:
        """Take in what has been acknowledged; save and tell when it is time."""
        self.settle(MAX_IN_FLIGHT)
        if time.monotonic() - self._saved_s >= SAVE_EVERY_S:
            self._save()

    def settle(self, n_left: int) -> None:
        """Wait until at most so many are under way; the oldest one's failure is raised."""
        while self._under_way and (len(self._under_way) > n_left or self._under_way[0][0].done()):
            future, n_events, completes = self._under_way[0]
            future.result()
            self._under_way.popleft()
            self._report.events += n_events
            self._report.messages += 1
            self._report.line = completes

    def end(self) -> None:
        """Note where to go on; when all is done, that there is nothing."""
        self._save()
        if self._report.is_finished:
            self._note.remove()

    def _save(self) -> None:
        self._saved_s = time.monotonic()
        self._report.seconds = self._saved_s - self._started_s
        if self._report.line:
            self._note.save(self._report.line)
        self._tell()


class _Pacer:
    """When the next message may go."""

    def __init__(self, rate: float | None, speed: float | None) -> None:
        if rate is not None and speed is not None:
            raise ValueError("either rate or speed, not both")
        for name, value in (("rate", rate), ("speed", speed)):
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive")
        self._rate = rate
        self._speed = speed
        self._due_s = time.monotonic()
        self._first: tuple[float, float] | None = None

    def wait(self, message: PutEvents, meanwhile: Callable[[], None]) -> None:
        """Return when this message is due."""
        due_s = self._due(message)
        while (left_s := due_s - time.monotonic()) > 0:
            time.sleep(min(left_s, BURST_S))
            meanwhile()

    def _due(self, message: PutEvents) -> float:
        now_s = time.monotonic()
        if self._rate is not None:
            due_s = max(self._due_s, now_s - BURST_S)
            self._due_s = due_s + len(message.event_list) / self._rate
            return due_s
        if self._speed is not None:
            recorded_s = message.event_list[0].sent_at
            if self._first is None:
                self._first = (now_s, recorded_s)
            return self._first[0] + (recorded_s - self._first[1]) / self._speed
        return now_s


@dataclass(frozen=True)
class _ResumePoint:
    """The file that says how far a replay came."""

    path: Path

    @classmethod
    def of(cls, recording: Recording, settings: Settings, as_: Owner) -> _ResumePoint:
        """The note of these very files, unchanged, read like this, sent to these very topics."""
        topics = Topics.of(settings)
        source = recording.source
        ids = topic_ids(settings, [topics.clicks, topics.purchases])
        files = [_identity(each) for each in source.files]
        whole = (files, source.name, source.options, as_, sorted(ids.items()))
        digest = hashlib.blake2b(repr(whole).encode(), digest_size=12).hexdigest()
        name = re.sub(r"[^\w.-]", "_", source.location.rstrip("/").rpartition("/")[2])[:80]
        return cls(settings.data_dir / "replay" / f"{name}.{digest}")

    def load(self) -> int:
        """The line to go on after; 0 when there is no note."""
        try:
            return int(self.path.read_text())
        except FileNotFoundError:
            return 0
        except ValueError as error:
            raise UnreadableRecording(
                f"{self.path} does not hold a line number: delete it to start from the first line"
            ) from error

    def save(self, line: int) -> None:
        """Write it, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        written = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        written.write_text(f"{line}\n")
        written.replace(self.path)

    def remove(self) -> None:
        """There is nothing left to go on with."""
        self.path.unlink(missing_ok=True)


def _identity(file: Object) -> tuple[object, ...]:
    """What tells a file from another, and from itself before a change."""
    if file.url.startswith("s3://"):
        return (file.url, file.size)
    path = Path(file.url).resolve()
    return (str(path), file.size, path.stat().st_mtime_ns)


def _good(rows: Iterable[RecordedRow], report: ReplayReport) -> Iterator[tuple[int, PutEvents]]:
    """The good rows; the bad ones go into the report."""
    for line, message in rows:
        report.rows += 1
        if isinstance(message, InvalidEvent):
            report.add_bad_row(line, message)
        else:
            yield line, message

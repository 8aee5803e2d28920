"""Replay of recorded events into the event topics, at full speed or paced.

An interrupted or failed replay leaves a resume point: the last line up to which Kafka has
acknowledged everything. A resumed replay sends the messages beyond it again; their events have the
same ids and so take effect once.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from models.errors import InvalidEvent, UnreadableRecording
from models.events import PutEvents
from models.settings import Settings
from models.tokens import Receipt
from streams.kafka.producing.tracker import Tracker
from streams.kafka.topics import Topics, topic_ids
from streams.object_store import Object, Objects
from streams.reading.read_options import ReadOptions
from streams.recordings.interrupts import Interrupts
from streams.recordings.recorded_events import (
    Owner,
    RecordedRow,
    Recording,
    group_into_messages,
    no_good_rows,
)

MAX_IN_FLIGHT = 5000
"""Most unacknowledged messages, and so the most that a resumed replay sends twice."""

MAX_BAD_ROWS = 20
LINGER_MS = 20
SAVE_EVERY_S = 1.0
BURST_S = 0.1
"""Longest delay by Kafka that a paced replay catches up with."""


@dataclass
class ReplayReport:
    """Progress and result of a replay; events and messages count once acknowledged by Kafka.

    `rows` counts the rows read, good and bad; `bad_rows` has line and reason of the first 20. All
    rows up to `line` are acknowledged; the replay started after `resumed_after_line`. An unfinished
    replay was interrupted, with more rows to send.
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
        """Count a bad row; the first ones are stored with their reasons."""
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
    """Send recorded events to the event topics.

    Ctrl-C ends it in order: messages in flight are awaited and the resume point is saved.

    Parameters
    ----------
    source, options, as_
        See `streams.recordings.recorded_events`.
    rate
        Most events a second; None: as many as Kafka accepts.
    speed
        Multiple of the recorded speed: 2 sends an hour of recorded time in half an hour.
    events_per_message
        Most neighbouring rows of a session in one message, 1 to 10.
    resume
        Start at the resume point of an unfinished replay of the same files to the same topics.
    on_recognised
        Called with the recognised source before anything is sent.
    on_progress
        Called about every second, and at the end.
    progress_bar
        Draw one if standard error is a terminal.

    Raises
    ------
    Unavailable
        Kafka fails during the replay; the resume point is saved.
    UnreadableRecording
        The source has an unknown format, is damaged, or has no good row.
    """
    pacer = _Pacer(rate, speed)
    objects = Objects(settings.buckets_dir)
    recording = Recording(str(source), options or ReadOptions(), objects)
    if on_recognised is not None:
        on_recognised(recording)
    resume_point = _ResumePoint.of(recording, settings, as_)
    start = resume_point.load() if resume else 0
    report = ReplayReport(resumed_after_line=start, line=start)
    rows = recording.events(
        now_s=time.time(), as_=as_, future_limit_s=settings.future_limit_s, after=start
    )
    with (
        Interrupts() as interrupts,
        closing(rows),
        _opened_tracker(settings, interrupts) as tracker,
        tqdm(unit=" events", disable=None if progress_bar else True) as bar,
    ):

        def report_progress() -> None:
            bar.update(report.events - bar.n)
            if on_progress is not None:
                on_progress(report)

        in_flight = _InFlight(report, resume_point, report_progress, interrupts)
        try:
            for message, completes in group_into_messages(_good(rows, report), events_per_message):
                pacer.wait(message, in_flight.watch)
                in_flight.send(tracker, message, completes)
            in_flight.settle()
            report.is_finished = True
        except KeyboardInterrupt:
            in_flight.settle()
        finally:
            in_flight.end()
    if report.is_finished and report.n_bad_rows == report.rows and not start:
        raise no_good_rows(recording, report.bad_rows)
    return report


@contextmanager
def _opened_tracker(settings: Settings, interrupts: Interrupts) -> Iterator[Tracker]:
    tracker = Tracker(settings, linger_ms=LINGER_MS)
    try:
        yield tracker
    finally:
        with interrupts.deferred():
            tracker.close()


class _InFlight:
    """Messages in flight, oldest first, and the resume point that follows the acknowledged ones."""

    def __init__(
        self,
        report: ReplayReport,
        resume_point: _ResumePoint,
        report_progress: Callable[[], None],
        interrupts: Interrupts,
    ) -> None:
        self._interrupts = interrupts
        self._report = report
        self._resume_point = resume_point
        self._report_progress = report_progress
        self._messages: deque[tuple[Future[Receipt], int, int]] = deque()
        self._started_s = time.monotonic()
        self._saved_s = self._started_s

    def send(self, tracker: Tracker, message: PutEvents, completes: int) -> None:
        """Send a message; waits while too many are in flight."""
        with self._interrupts.deferred():
            try:
                future = tracker.put_events(message)
            except InvalidEvent as error:  # too large as a whole
                self._report.add_bad_row(completes, error)
                return
            self._messages.append((future, len(message.event_list), completes))
            self._watch()

    def watch(self) -> None:
        """Count acknowledged messages; save and report the progress about every second."""
        with self._interrupts.deferred():
            self._watch()

    def settle(self) -> None:
        """Wait until no message is in flight; raises the failure of the oldest."""
        with self._interrupts.deferred():
            self._settle(0)

    def _watch(self) -> None:
        self._settle(MAX_IN_FLIGHT)
        if time.monotonic() - self._saved_s >= SAVE_EVERY_S:
            self._save()

    def _settle(self, n_left: int) -> None:
        """Wait until at most `n_left` messages are in flight."""
        while self._messages and (len(self._messages) > n_left or self._messages[0][0].done()):
            future, n_events, completes = self._messages[0]
            future.result()
            self._messages.popleft()
            self._report.events += n_events
            self._report.messages += 1
            self._report.line = completes

    def end(self) -> None:
        """Save the resume point; remove it if the replay is finished."""
        self._save()
        if self._report.is_finished:
            self._resume_point.remove()

    def _save(self) -> None:
        self._saved_s = time.monotonic()
        self._report.seconds = self._saved_s - self._started_s
        if self._report.line:
            self._resume_point.save(self._report.line)
        self._report_progress()


class _Pacer:
    """Due times of messages, by a rate or by the recorded times."""

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
        """Wait until a message is due; calls `meanwhile` during the wait."""
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
    """The file with the last acknowledged line of an unfinished replay."""

    path: Path

    @classmethod
    def of(cls, recording: Recording, settings: Settings, as_: Owner) -> _ResumePoint:
        """The resume point of unchanged files, read with the same options into the same topics."""
        topics = Topics.of(settings)
        source = recording.source
        ids = topic_ids(settings, [topics.clicks, topics.purchases])
        files = [_identity(each) for each in source.files]
        whole = (files, source.name, source.options, as_, sorted(ids.items()))
        digest = hashlib.blake2b(repr(whole).encode(), digest_size=12).hexdigest()
        name = re.sub(r"[^\w.-]", "_", source.location.rstrip("/").rpartition("/")[2])[:80]
        return cls(settings.data_dir / "replay" / f"{name}.{digest}")

    def load(self) -> int:
        """The last acknowledged line; 0 without a resume point."""
        try:
            return int(self.path.read_text())
        except FileNotFoundError:
            return 0
        except ValueError as error:
            raise UnreadableRecording(
                f"{self.path} does not hold a line number: delete it to start from the first line"
            ) from error

    def save(self, line: int) -> None:
        """Write the line atomically."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        written = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        written.write_text(f"{line}\n")
        written.replace(self.path)

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


def _identity(file: Object) -> tuple[object, ...]:
    """Identity of a file's content: URL or path, size, and time of the last change."""
    if file.url.startswith("s3://"):
        return (file.url, file.size)
    path = Path(file.url).resolve()
    return (str(path), file.size, path.stat().st_mtime_ns)


def _good(rows: Iterable[RecordedRow], report: ReplayReport) -> Iterator[tuple[int, PutEvents]]:
    """Good rows; bad ones are counted in the report."""
    for line, message in rows:
        report.rows += 1
        if isinstance(message, InvalidEvent):
            report.add_bad_row(line, message)
        else:
            yield line, message

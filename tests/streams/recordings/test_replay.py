"""Replay on a real broker: exact counts, interruption at any point, and going on from there."""

from __future__ import annotations

import gc
import gzip
import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import groupby
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition

from models.errors import Unavailable, UnreadableRecording
from models.events import PutEvents, parse
from models.settings import Settings
from models.tokens import Receipt
from ops.embedded_servers import Server, start_broker
from streams.kafka.producing.tracker import Tracker
from streams.kafka.topics import Topics, ensure_topics
from streams.object_store import Objects
from streams.reading.read_options import ReadOptions
from streams.recordings import replay as module
from streams.recordings.recorded_events import Recording
from streams.recordings.replay import ReplayReport, replay
from tests.servers import own_port

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

ROOT = Path(__file__).parents[3]
OTTO = ROOT.parent / "shared" / "data" / "otto-fixture" / "events.csv.gz"
FIRST_S = 1_600_000_000

INTERRUPTED = """
import dataclasses, json, sys
from pathlib import Path
from models.settings import Settings
from streams.recordings.replay import replay

report = replay(
    Path(sys.argv[1]),
    Settings.model_validate_json(sys.argv[2]),
    rate=2000,
    on_progress=lambda report: print(json.dumps(dataclasses.asdict(report)), flush=True),
)
print(json.dumps(dataclasses.asdict(report)), flush=True)
"""


@pytest.fixture(autouse=True)
def _no_sockets_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Refused connections, whose sockets kafka-python leaves to the garbage collector, are gone.

    Its log is silenced because a record keeps the error, and so the socket, past the test's end.
    """
    caplog.set_level(logging.CRITICAL, logger="kafka")
    yield
    gc.collect()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A broker that this module's tests share, each with a prefix of its own."""
    server = start_broker(tmp_path_factory.mktemp("broker"))
    yield server
    server.process.send_signal(signal.SIGCONT)
    server.stop()


@pytest.fixture
def settings(broker: Server, tmp_path: Path) -> Settings:
    """Settings with topics and a folder of this test's own."""
    made = Settings(
        kafka=broker.address,
        topic_prefix=f"{uuid.uuid4().hex}.",
        partitions=2,
        data_dir=tmp_path / "data",
        publish_timeout_s=2,
    )
    ensure_topics(made)
    return made


def recording(folder: Path, n: int) -> Path:
    """A file of `n` clicks, each on another item, of 50 users."""
    path = folder / "events.csv"
    rows = (f"u{k % 50},i{k},click,{FIRST_S + k}\n" for k in range(n))
    path.write_text("user,item,type,ts\n" + "".join(rows))
    return path


def read_as(path: Path) -> Recording:
    """The recording in a file."""
    return Recording(str(path), ReadOptions(), Objects())


def sent(settings: Settings, topic: str) -> list[PutEvents]:
    """Every message of a topic."""
    consumer = KafkaConsumer(
        bootstrap_servers=settings.kafka, auto_offset_reset="earliest", enable_auto_commit=False
    )
    try:
        partitions = [TopicPartition(topic, n) for n in range(settings.partitions)]
        consumer.assign(partitions)
        messages: list[PutEvents] = []
        deadline_s = time.monotonic() + 30
        while not all(
            consumer.highwater(one) is not None
            and consumer.position(one) == consumer.highwater(one)
            for one in partitions
        ):
            assert time.monotonic() < deadline_s, "the topic cannot be read"
            for records in consumer.poll(timeout_ms=200).values():
                messages += [parse(record.value, now_s=time.time()) for record in records]
        return messages
    finally:
        consumer.close()


def items(settings: Settings) -> Counter[str | None]:
    """Clicks of each item in the broker."""
    return Counter(
        event.item_id
        for message in sent(settings, Topics.of(settings).clicks)
        for event in message.event_list
    )


def notes(settings: Settings) -> list[Path]:
    """Files in the folder of resume points."""
    return list((settings.data_dir / "replay").glob("*"))


@pytest.fixture
def otto() -> Path:
    """The OTTO fixture: 862 events of 20 sessions."""
    if not OTTO.exists():
        assert "CI" not in os.environ, f"{OTTO} is missing"
        pytest.skip(f"{OTTO} is not here")
    return OTTO


def runs(path: Path, limit: int) -> int:
    """Messages of a file's rows, if only neighbours of one user share one."""
    with gzip.open(path, "rt") as rows:
        next(rows)
        users = groupby(row.split(",")[0] for row in rows)
        return sum(math.ceil(len(list(run)) / limit) for _, run in users)


@pytest.mark.parametrize("events_per_message", [1, 10])
def test_every_event_of_a_recording_arrives(
    settings: Settings, otto: Path, events_per_message: int
) -> None:
    """Every event of the file is in its topic, in the session's order, once."""
    report = replay(otto, settings, as_="sessions", events_per_message=events_per_message)
    assert (report.rows, report.events, report.n_bad_rows) == (862, 862, 0)
    assert report.is_finished
    assert notes(settings) == []
    topics = Topics.of(settings)
    clicks, purchases = sent(settings, topics.clicks), sent(settings, topics.purchases)
    assert report.messages == runs(otto, events_per_message)
    assert {message.user_id for message in clicks} == {None}
    types = Counter(
        event.event_type for message in clicks + purchases for event in message.event_list
    )
    assert types == {"click": 800, "cart": 52, "purchase": 10}
    assert {event.event_type for message in purchases for event in message.event_list} == {
        "purchase"
    }
    times: dict[str, list[float]] = {}
    for message in clicks:
        times.setdefault(message.session_id, []).extend(one.sent_at for one in message.event_list)
    assert len(times) == 20
    assert all(ones == sorted(ones) for ones in times.values())


def test_a_second_replay_has_the_same_event_ids(settings: Settings, otto: Path) -> None:
    """Without `resume` a file is sent again from the start, under the same event ids."""
    for _ in range(2):
        assert replay(otto, settings).events == 862
    topics = Topics.of(settings)
    ids = Counter(
        event.event_id
        for topic in (topics.clicks, topics.purchases)
        for message in sent(settings, topic)
        for event in message.event_list
    )
    assert len(ids) == 862
    assert set(ids.values()) == {2}


def test_bad_rows_are_in_the_report(settings: Settings, tmp_path: Path) -> None:
    """All are counted, and the first twenty reported with line and reason."""
    path = recording(tmp_path, 10)
    path.write_text(path.read_text() + "u,i,click,never\n" * 30)
    column_options: list[ReplayReport] = []
    report = replay(path, settings, on_progress=column_options.append)
    assert (report.rows, report.events, report.n_bad_rows) == (40, 10, 30)
    assert report.bad_rows == [
        (n, "TIMESTAMP: not a time: 'never' in column ts") for n in range(12, 32)
    ]
    assert column_options[-1] is report


def test_a_failure_of_kafka_saves_the_resume_point(
    settings: Settings, broker: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The position is noted, and resuming sends the rest: no gap, few events twice."""
    monkeypatch.setattr(module, "SAVE_EVERY_S", 0.1)
    monkeypatch.setattr(module, "MAX_IN_FLIGHT", 100)
    path = recording(tmp_path, 2000)

    def hang(report: ReplayReport) -> None:
        if report.events >= 300:
            broker.process.send_signal(signal.SIGSTOP)

    try:
        with pytest.raises(Unavailable, match=settings.kafka):
            replay(path, settings, rate=2000, on_progress=hang)
    finally:
        broker.process.send_signal(signal.SIGCONT)
    (note,) = notes(settings)
    line = int(note.read_text())
    assert 300 < line < 2000
    report = replay(path, settings, resume=True)
    assert report.resumed_after_line == line
    assert report.events == 2001 - line
    assert notes(settings) == []
    found = items(settings)
    assert set(found) == {f"i{n}" for n in range(2000)}
    # Messages beyond the resume point that had arrived, some of them in the hung broker.
    assert found.total() - 2000 <= 101


def test_an_interrupted_replay_resumes_without_a_gap(settings: Settings, tmp_path: Path) -> None:
    """Ctrl-C ends it in order: all that was sent is acknowledged and noted, nothing is repeated."""
    # The broker answers at its leisure while other tests take the machine.
    settings = settings.model_copy(update={"publish_timeout_s": 60.0})
    path = recording(tmp_path, 8_000)
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(path), settings.model_dump_json()],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0
    report = json.loads(output.splitlines()[-1])
    assert not report["is_finished"]
    assert 0 < report["events"] < 8_000
    (note,) = notes(settings)
    assert int(note.read_text()) == report["line"]
    rest = replay(path, settings, resume=True)
    assert rest.resumed_after_line == report["line"]
    found = items(settings)
    assert set(found) == {f"i{n}" for n in range(8_000)}
    assert found.total() == 8_000


def test_an_interrupt_finds_no_message_between_sending_and_counting(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor a lock that is held: it waits for the end of the call."""
    path = recording(tmp_path, 50)
    put_events = Tracker.put_events

    def put_and_interrupt(tracker: Tracker, message: PutEvents) -> Future[Receipt]:
        sent = put_events(tracker, message)
        if message.event_list[0].item_id == "i20":
            signal.raise_signal(signal.SIGINT)
        return sent

    monkeypatch.setattr(Tracker, "put_events", put_and_interrupt)
    report = replay(path, settings)

    assert (report.events, report.is_finished) == (21, False)
    assert items(settings).total() == 21


def test_a_resume_point_is_of_one_file_and_its_topics(settings: Settings, tmp_path: Path) -> None:
    """A changed file, or topics made anew, are sent from the start."""
    path = recording(tmp_path, 10)
    folder = settings.data_dir / "replay"
    replay(path, settings)
    note = module._ResumePoint.of(read_as(path), settings, "users")
    assert note.path.parent == folder
    assert note == module._ResumePoint.of(read_as(path), settings, "users")
    assert note != module._ResumePoint.of(read_as(path), settings, "sessions")
    other = settings.model_copy(update={"topic_prefix": f"{uuid.uuid4().hex}."})
    ensure_topics(other)
    assert note != module._ResumePoint.of(read_as(path), other, "users")
    path.write_text(path.read_text() + "u,i,click,1600000000\n")
    assert note != module._ResumePoint.of(read_as(path), settings, "users")


def test_a_damaged_resume_point_is_an_error(settings: Settings, tmp_path: Path) -> None:
    """Rather than guess where to go on, the error names the file to delete."""
    path = recording(tmp_path, 10)
    note = module._ResumePoint.of(read_as(path), settings, "users")
    note.save(3)
    note.path.write_text("three")
    with pytest.raises(UnreadableRecording, match=str(note.path)):
        replay(path, settings, resume=True)
    assert replay(path, settings).events == 10
    assert notes(settings) == []


def test_a_finished_replay_leaves_nothing_to_resume(settings: Settings, tmp_path: Path) -> None:
    """Resuming without a note sends the file from the start."""
    path = recording(tmp_path, 10)
    assert replay(path, settings, resume=True).events == 10
    assert replay(path, settings, resume=True).resumed_after_line == 0


@pytest.mark.parametrize(("rate", "speed"), [(100.0, None), (None, 100.0)])
def test_rate_and_speed_pace_a_replay(
    settings: Settings, tmp_path: Path, rate: float | None, speed: float | None
) -> None:
    """61 events, a recorded second apart, take 0.6 s less the time that may be caught up."""
    report = replay(recording(tmp_path, 61), settings, rate=rate, speed=speed)
    assert report.events == 61
    assert report.seconds >= 0.5 - module.BURST_S


@pytest.mark.parametrize(
    ("rate", "speed"), [(0.0, None), (-1.0, None), (None, 0.0), (float("nan"), None), (1.0, 1.0)]
)
def test_invalid_rates_and_speeds_are_refused(
    settings: Settings, tmp_path: Path, rate: float | None, speed: float | None
) -> None:
    """The error comes before anything is sent."""
    with pytest.raises(ValueError, match=r"rate|speed"):
        replay(recording(tmp_path, 1), settings, rate=rate, speed=speed)
    assert items(settings) == {}


def test_an_unknown_format_is_an_error(settings: Settings, tmp_path: Path) -> None:
    """Nothing is sent of a file that cannot be read, and no note is left."""
    path = tmp_path / "events.xml"
    path.write_text("<events/>")
    with pytest.raises(UnreadableRecording):
        replay(path, settings)
    assert notes(settings) == []


def test_a_replay_without_kafka_is_unavailable(tmp_path: Path) -> None:
    """The error names the address."""
    address = f"127.0.0.1:{own_port()}"
    with pytest.raises(Unavailable, match=address):
        replay(recording(tmp_path, 1), Settings(kafka=address, publish_timeout_s=0.3))

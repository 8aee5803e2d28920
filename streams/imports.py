"""Dataset import jobs: rows of CSV objects become live events and metadata.

First every row is checked, and nothing is sent where too many are bad. Then the good ones are sent
through Kafka like live ones, in chunks; how far that is, is noted once a chunk is acknowledged. Who
goes on with an import reads in Kafka what of the chunk under way was sent: every row takes effect
once. FULL and INCREMENTAL alike add to what is there, and take the place of older metadata.
"""

from __future__ import annotations

import itertools
import logging
import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from models.errors import InvalidEvent, InvalidInput, InvalidRecord
from models.events import PutEvents, parse, tracking_id_of
from models.records import Kind as RecordKind
from models.records import Properties
from models.rows import event_of, record_of, together
from models.schemas import Schema, contextual, parse_schema
from models.tokens import Kind, Receipt
from streams import dead_letters
from streams.columns import Kind as RowKind
from streams.dead_letters import FULL
from streams.rows import Row, Rows
from streams.sent import Ends, ends_after, ends_now, event_ids_since, in_effect
from streams.topics import Topics
from streams.work import Outcome, Work

CHUNK_ROWS = 2000
"""Rows between two notes of how far an import is."""

TELL_EVERY = 500
"""Rows checked between two words on how far an import is."""

LOG_EVERY = 50_000
"""Rows between two lines of the log."""

EVENTS_A_MESSAGE = 10
MAX_SHOWN = 10

KINDS: dict[str, tuple[Kind, ...]] = {
    "INTERACTIONS": ("clicks", "purchases"),
    "ITEMS": ("items",),
    "USERS": ("users",),
}
"""The topics that the rows of each type of dataset go to."""

_KINDS_OF_ROWS: dict[str, RowKind] = {
    "INTERACTIONS": "interactions",
    "ITEMS": "items",
    "USERS": "users",
}

log = logging.getLogger(__name__)

Good = PutEvents | tuple[str, Properties]


@dataclass
class Survey:
    """What a first reading found: rows, and the first bad ones with their places."""

    rows: int = 0
    bad: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, row: Row, said: Good | Exception) -> None:
        """Count a row."""
        self.rows += 1
        if isinstance(said, Exception):
            self.bad += 1
            if len(self.first) < MAX_SHOWN:
                self.first.append(f"{row.where}: {said}")

    @property
    def remark(self) -> str:
        """What was left out, for people; empty if nothing was."""
        if not self.bad:
            return ""
        return f"{self.bad} of {self.rows} rows were left out: " + "; ".join(self.first)


class Chunk(NamedTuple):
    """The good ones of some rows, and how many rows have been read after them."""

    row: int
    good: list[Good]


class _Source(NamedTuple):
    """Where the rows are, and what they are rows of."""

    location: str
    schema: Schema
    dataset_type: str


async def import_dataset(work: Work) -> Outcome:
    """Bring the rows of an import into effect.

    Raises
    ------
    InvalidInput
        Columns are missing or too many rows are bad; then nothing was sent.
    """
    job = work.job.resource
    dataset = await work.resources.get(job.links[0])
    schema = await work.resources.get(dataset.links[1])
    source = _Source(
        job.data["dataSource"]["dataLocation"],
        parse_schema(schema.data["schema"]),
        dataset.data["datasetType"],
    )
    survey = await _surveyed(work, source)
    if source.dataset_type == "INTERACTIONS":
        # Again, for who created the dataset may have been interrupted, or did not know of them yet.
        await work.tenants.name_columns(work.group, contextual(source.schema))
        await _send_events(work, source)
    else:
        await _send_records(work, source, "items" if source.dataset_type == "ITEMS" else "users")
    await in_effect(work.settings, work.tenants.store(work.settings.group), work.noted["ends"])
    remarks = [await work.in_thread(_beyond, work, source), survey.remark]
    log.info("%s: %d rows, %d bad", work.job.path, survey.rows, survey.bad)
    return Outcome(hidden={"row": survey.rows}, remark="; ".join(filter(None, remarks)))


async def _surveyed(work: Work, source: _Source) -> Survey:
    if "survey" in work.noted:
        return msgspec.convert(work.noted["survey"], Survey)
    survey = await work.in_thread(_survey, work, source)
    share = work.settings.import_bad_share
    if not survey.rows:
        raise InvalidInput(f"{source.location} has no rows")
    if survey.bad == survey.rows or survey.bad > share * survey.rows:
        raise InvalidInput(
            f"{survey.bad} of {survey.rows} rows are bad, more than the share of {share:g} that "
            f"RECOMMENDER_IMPORT_BAD_SHARE allows; nothing was imported: " + "; ".join(survey.first)
        )
    ends = await work.in_thread(ends_now, work.settings, KINDS[source.dataset_type])
    more: dict[str, Any] = {"letters": await work.in_thread(dead_letters.ends, work.settings)}
    if source.dataset_type == "INTERACTIONS":
        # Nobody else knows it, so that what this job has sent can be told from all else.
        more["tracking_id"] = secrets.token_hex(16)
    await work.note(survey=msgspec.to_builtins(survey), row=0, ends=ends, **more)
    return survey


def _survey(work: Work, source: _Source) -> Survey:
    survey = Survey()
    rows = _rows(work, source)
    log.info("%s: %s", work.job.path, "; ".join(rows.found.said))
    done = 0

    def on_bytes(n: int) -> None:
        nonlocal done
        done += n

    for row, said in _said(work, source, rows, on_bytes):
        survey.add(row, said)
        if survey.rows % TELL_EVERY == 0:
            what = f"rows checked ({done / 1e6:.1f} of {rows.n_bytes / 1e6:.1f} MB)"
            work.tell(what, survey.rows)
            if survey.rows % LOG_EVERY == 0:
                log.info("%s: %d %s, %d bad", work.job.path, survey.rows, what, survey.bad)
    return survey


async def _send_events(work: Work, source: _Source) -> None:
    settings, tracking_id = work.settings, work.noted["tracking_id"]
    await work.tenants.register(tracking_id, work.group)
    ends: Ends = work.noted["ends"]
    sent = await work.in_thread(event_ids_since, settings, ends, tracking_id)
    if sent:
        # What was sent must take effect too; the ids are of the first chunk below.
        ends = await work.in_thread(ends_now, settings, KINDS["INTERACTIONS"])

    def send(chunk: Chunk) -> list[Receipt]:
        tracker = work.tracker()
        events = [one for one in chunk.good if isinstance(one, PutEvents)]
        new = [one for one in events if one.event_list[0].event_id not in sent]
        futures = [
            tracker.put_events(msgspec.structs.replace(message, tracking_id=tracking_id))
            for message in together(new, EVENTS_A_MESSAGE)
        ]
        return _receipts(futures)

    await _send(work, source, ends, send)


async def _send_records(work: Work, source: _Source, kind: RecordKind) -> None:
    group = work.group

    def send(chunk: Chunk) -> list[Receipt]:
        tracker = work.tracker()
        put = tracker.put_items if kind == "items" else tracker.put_users
        # One at a time: a call has all of its records under way at once, however long they are.
        futures = [put(group, [one]) for one in chunk.good if isinstance(one, tuple)]
        return _receipts(futures)

    await _send(work, source, work.noted["ends"], send)


async def _send(
    work: Work, source: _Source, ends: Ends, send: Callable[[Chunk], list[Receipt]]
) -> None:
    rows = work.noted["survey"]["rows"]
    work.tell("rows sent", work.noted["row"], rows)
    chunks = _chunks(work, source, after=work.noted["row"])
    while (chunk := await work.in_thread(next, chunks, None)) is not None:
        ends = ends_after(ends, await work.in_thread(send, chunk))
        work.tell("rows sent", chunk.row, rows)
        if chunk.row % LOG_EVERY < CHUNK_ROWS:
            log.info("%s: %d of %d rows sent", work.job.path, chunk.row, rows)
        await work.note(row=chunk.row, ends=ends)


def _receipts(futures: Sequence[Future[Receipt]]) -> list[Receipt]:
    """All of them, once nothing is under way any more; raises the first failure then."""
    wait(futures)
    return [future.result() for future in futures]


def _chunks(work: Work, source: _Source, *, after: int) -> Iterator[Chunk]:
    """The good rows beyond the first so many, in chunks."""
    rows = itertools.islice(_said(work, source, _rows(work, source)), after, None)
    row = after
    while some := list(itertools.islice(rows, CHUNK_ROWS)):
        row += len(some)
        yield Chunk(row, [said for _, said in some if not isinstance(said, Exception)])


def _beyond(work: Work, source: _Source) -> str:
    """What went beyond the limits of the group, for people; empty if nothing did."""
    kind = "users" if source.dataset_type == "USERS" else "items"
    counts: dict[dead_letters.Source, int] = {}
    for letter in work.until_stopped(dead_letters.since(work.settings, work.noted["letters"])):
        if letter.reason == FULL and letter.group == work.group:
            # One that is there twice has one source.
            counts[letter.source] = _imported(work, source, letter)
    count = sum(counts.values())
    what = "events on further items" if source.dataset_type == "INTERACTIONS" else f"{kind}"
    limit = f"RECOMMENDER_MAX_{kind.upper()}"
    return f"{count} {what} went beyond {limit} and are dead letters" if count else ""


def _imported(work: Work, source: _Source, letter: dead_letters.DeadLetter) -> int:
    """How many rows of the import a dead letter holds; of metadata, whoever sent it."""
    if source.dataset_type == "INTERACTIONS":
        raw = letter.raw()
        if tracking_id_of(raw) != work.noted["tracking_id"]:
            return 0
        return len(parse(raw, now_s=work.clock(), future_limit_s=math.inf).event_list)
    topics = Topics.of(work.settings)
    return letter.source.topic == (topics.users if source.dataset_type == "USERS" else topics.items)


def _rows(work: Work, source: _Source) -> Rows:
    latest_s = work.clock() + work.settings.future_limit_s
    kind = _KINDS_OF_ROWS[source.dataset_type]
    return Rows(work.objects, source.location, source.schema, kind, latest_s=latest_s)


def _said(
    work: Work, source: _Source, rows: Rows, on_bytes: Callable[[int], None] = lambda _: None
) -> Iterator[tuple[Row, Good | Exception]]:
    """Every row, and what is to be sent of it or what is wrong with it."""
    now_s, settings = work.clock(), work.settings
    for row in work.until_stopped(rows.read(on_bytes)):
        if isinstance(row.values, InvalidRecord):
            yield row, row.values
            continue
        try:
            if source.dataset_type == "INTERACTIONS":
                limit_s = settings.future_limit_s
                yield row, event_of(row.values, now_s=now_s, future_limit_s=limit_s)
            else:
                kind: RecordKind = "items" if source.dataset_type == "ITEMS" else "users"
                yield row, record_of(kind, row.values)
        except (InvalidEvent, InvalidRecord) as error:
            yield row, error

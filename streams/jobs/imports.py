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
from typing import Any, NamedTuple

import msgspec

from models.events import PutEvents, parse, tracking_id_of
from models.metadata_records import RecordKind
from models.personalize.dataset_rows import pack_by_user
from models.personalize.dataset_schemas import contextual, parse_schema
from models.tokens import Receipt, TopicKind
from streams.jobs.dataset_files import DatasetRow
from streams.jobs.import_rows import Good, ImportSource, ImportSurvey, opened, parsed_rows
from streams.jobs.job import JobContext, JobResult
from streams.jobs.resume import Ends, ends_after, ends_now, event_ids_since, in_effect
from streams.kafka import dead_letters
from streams.kafka.dead_letters import FULL
from streams.kafka.topics import Topics

CHUNK_ROWS = 2000
"""Rows between two notes of how far an import is."""

TELL_EVERY = 500
"""Rows checked between two words on how far an import is."""

LOG_EVERY = 50_000
"""Rows between two lines of the log."""

EVENTS_A_MESSAGE = 10

KINDS: dict[str, tuple[TopicKind, ...]] = {
    "INTERACTIONS": ("clicks", "purchases"),
    "ITEMS": ("items",),
    "USERS": ("users",),
}
"""The topics that the rows of each type of dataset go to."""

log = logging.getLogger(__name__)


class Chunk(NamedTuple):
    """The good ones of some rows, and how many rows have been read after them."""

    row: int
    good: list[Good]


async def import_dataset(work: JobContext) -> JobResult:
    """Bring the rows of an import into effect.

    Raises
    ------
    InvalidInput
        Columns are missing or too many rows are bad; then nothing was sent.
    """
    job = work.job.resource
    dataset = await work.resources.get(job.links[0])
    schema = await work.resources.get(dataset.links[1])
    source = ImportSource(
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
    return JobResult(hidden={"row": survey.rows}, remark="; ".join(filter(None, remarks)))


async def _surveyed(work: JobContext, source: ImportSource) -> ImportSurvey:
    if "survey" in work.noted:
        return msgspec.convert(work.noted["survey"], ImportSurvey)
    survey = await work.in_thread(_survey, work, source)
    survey.check(source.location, work.settings.import_bad_share)
    ends = await work.in_thread(ends_now, work.settings, KINDS[source.dataset_type])
    more: dict[str, Any] = {"letters": await work.in_thread(dead_letters.ends, work.settings)}
    if source.dataset_type == "INTERACTIONS":
        # Nobody else knows it, so that what this job has sent can be told from all else.
        more["tracking_id"] = secrets.token_hex(16)
    await work.note(survey=msgspec.to_builtins(survey), row=0, ends=ends, **more)
    return survey


def _survey(work: JobContext, source: ImportSource) -> ImportSurvey:
    survey = ImportSurvey()
    rows = opened(work.objects, source, work.settings, now_s=work.clock())
    log.info("%s: %s", work.job.path, "; ".join(rows.found.said))
    done = 0

    def on_bytes(n: int) -> None:
        nonlocal done
        done += n

    for row, one in _said(work, source, rows.read(on_bytes)):
        survey.add(row, one)
        if survey.rows % TELL_EVERY == 0:
            what = f"rows checked ({done / 1e6:.1f} of {rows.n_bytes / 1e6:.1f} MB)"
            work.tell(what, survey.rows)
            if survey.rows % LOG_EVERY == 0:
                log.info("%s: %d %s, %d bad", work.job.path, survey.rows, what, survey.bad)
    return survey


async def _send_events(work: JobContext, source: ImportSource) -> None:
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
            for message in pack_by_user(new, EVENTS_A_MESSAGE)
        ]
        return _receipts(futures)

    await _send(work, source, ends, send)


async def _send_records(work: JobContext, source: ImportSource, kind: RecordKind) -> None:
    group = work.group

    def send(chunk: Chunk) -> list[Receipt]:
        tracker = work.tracker()
        put = tracker.put_items if kind == "items" else tracker.put_users
        # One at a time: a call has all of its records under way at once, however long they are.
        futures = [put(group, [one]) for one in chunk.good if isinstance(one, tuple)]
        return _receipts(futures)

    await _send(work, source, work.noted["ends"], send)


async def _send(
    work: JobContext, source: ImportSource, ends: Ends, send: Callable[[Chunk], list[Receipt]]
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


def _chunks(work: JobContext, source: ImportSource, *, after: int) -> Iterator[Chunk]:
    """The good rows beyond the first so many, in chunks."""
    found = opened(work.objects, source, work.settings, now_s=work.clock())
    rows = itertools.islice(_said(work, source, found.read()), after, None)
    row = after
    while some := list(itertools.islice(rows, CHUNK_ROWS)):
        row += len(some)
        yield Chunk(row, [one for _, one in some if not isinstance(one, Exception)])


def _beyond(work: JobContext, source: ImportSource) -> str:
    """What went beyond the limits of the group, for people; empty if nothing did."""
    kind = "users" if source.dataset_type == "USERS" else "items"
    counts: dict[dead_letters.Origin, int] = {}
    for letter in work.until_stopped(dead_letters.since(work.settings, work.noted["letters"])):
        if letter.reason == FULL and letter.group == work.group:
            # One that is there twice has one source.
            counts[letter.source] = _imported(work, source, letter)
    count = sum(counts.values())
    what = "events on further items" if source.dataset_type == "INTERACTIONS" else f"{kind}"
    limit = f"RECOMMENDER_MAX_{kind.upper()}"
    return f"{count} {what} went beyond {limit} and are dead letters" if count else ""


def _imported(work: JobContext, source: ImportSource, letter: dead_letters.DeadLetter) -> int:
    """How many rows of the import a dead letter holds; of metadata, whoever sent it."""
    if source.dataset_type == "INTERACTIONS":
        raw = letter.raw()
        if tracking_id_of(raw) != work.noted["tracking_id"]:
            return 0
        return len(parse(raw, now_s=work.clock(), future_limit_s=math.inf).event_list)
    topics = Topics.of(work.settings)
    return letter.source.topic == (topics.users if source.dataset_type == "USERS" else topics.items)


def _said(
    work: JobContext, source: ImportSource, rows: Iterator[DatasetRow]
) -> Iterator[tuple[DatasetRow, Good | Exception]]:
    """Every row and what it says, until the work is to end."""
    return parsed_rows(work.until_stopped(rows), source, work.settings, now_s=work.clock())

"""Dataset import jobs: rows of files become live events and metadata records.

The life of an import:

1. `_first_reading` checks every row. With too many bad ones the job fails and nothing is sent.
2. Its result, the ends of the topics and a tracking id of the job's own are the first checkpoint.
3. `_second_reading` sends the good rows through Kafka like live ones, in chunks; each chunk that
   Kafka has acknowledged is a checkpoint.
4. `wait_until_in_effect` waits for the workers, and `_over_limits` counts the dead letters.
5. A FULL import removes what earlier imports brought and it does not have (replacements.py); an
   INCREMENTAL one only adds rows, and replaces metadata of the same ids.
6. If the job asks for it, the group's metric attribution writes a report of the rows.

A runner that resumes an import reads in Kafka which events of the unfinished chunk were sent: every
row takes effect once.
"""

from __future__ import annotations

import itertools
import logging
import math
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from models.action_groups import actions_group
from models.errors import InvalidEvent, InvalidInput, InvalidRecord
from models.events import IMPORT_PREFIX, Event, PutEvents, parse, tracking_id_of
from models.metadata_records import Properties, RecordKind
from models.personalize.datasets.dataset_rows import (
    action_values,
    event_of,
    pack_by_user,
    record_of,
)
from models.personalize.datasets.dataset_schemas import (
    ACTION_TYPES,
    EVENT_TYPES_OF_DATASETS,
    Schema,
    contextual,
    parse_schema,
)
from models.settings import Settings
from models.state.store import Store
from models.tokens import Receipt, TopicKind
from streams.jobs.dataset_files import DatasetRow, DatasetRows
from streams.jobs.job import JobContext, JobResult
from streams.jobs.metric_reports import publish_import_report
from streams.jobs.replacements import replace_events, replace_records
from streams.jobs.resume import (
    Ends,
    current_ends,
    ends_after,
    event_ids_since,
    wait_until_in_effect,
)
from streams.kafka import dead_letters
from streams.kafka.dead_letters import FULL
from streams.kafka.topics import Topics
from streams.object_store import Objects
from streams.reading.column_mapping import DatasetKind

CHUNK_ROWS = 2000
"""Rows between two checkpoints of an import."""

REPORT_EVERY = 500
"""Rows checked between two progress reports."""

LOG_EVERY = 50_000
"""Rows between two log lines."""

EVENTS_PER_MESSAGE = 10

MAX_SHOWN = 10
"""Bad rows that the remark or the error of an import names."""

Good = PutEvents | tuple[str, Properties]
"""The parsed form of a good row: a message with one event, or the id and properties of a record."""

SendChunk = Callable[[list[Good]], list[Receipt]]

LOG = logging.getLogger(__name__)


class ImportTarget(NamedTuple):
    """The rows of a type of dataset, and the topics that they are sent to."""

    rows: DatasetKind
    topics: tuple[TopicKind, ...]
    limit: RecordKind
    """The records whose number the group's limits bound: events bring items, too."""


DATASET_TYPES = {
    "INTERACTIONS": ImportTarget("interactions", ("clicks", "purchases"), "items"),
    "ITEMS": ImportTarget("items", ("items",), "items"),
    "USERS": ImportTarget("users", ("users",), "users"),
    # Actions are items of a state group of their own.
    "ACTIONS": ImportTarget("items", ("items",), "items"),
    "ACTION_INTERACTIONS": ImportTarget("interactions", ("clicks", "purchases"), "items"),
}


class ImportSource(NamedTuple):
    """The files of an import, the schema of its rows, and the type of its dataset."""

    location: str
    schema: Schema
    dataset_type: str

    @property
    def type(self) -> ImportTarget:
        """Kind of the rows and their topics."""
        return DATASET_TYPES[self.dataset_type]

    @property
    def has_events(self) -> bool:
        """True for interactions, False for metadata records."""
        return self.dataset_type in EVENT_TYPES_OF_DATASETS

    @property
    def is_of_actions(self) -> bool:
        """True for actions and interactions with them."""
        return self.dataset_type in ACTION_TYPES

    def state_group(self, group: str) -> str:
        """The state group that the rows of a dataset group's import come into."""
        return actions_group(group) if self.is_of_actions else group

    def open(self, objects: Objects, settings: Settings, *, now_s: float) -> DatasetRows:
        """The rows of the import, their format recognised; raises the errors of `DatasetRows`."""
        latest_s = now_s + settings.future_limit_s
        return DatasetRows(objects, self.location, self.schema, self.type.rows, latest_s=latest_s)

    def parsed(
        self, rows: Iterable[DatasetRow], settings: Settings, *, now_s: float
    ) -> Iterator[tuple[DatasetRow, Good | Exception]]:
        """Each row with its event or record, or with the error that makes it a bad row."""
        for row in rows:
            if isinstance(row.values, InvalidRecord):
                yield row, row.values
                continue
            try:
                values = action_values(row.values) if self.is_of_actions else row.values
                if self.has_events:
                    limit_s = settings.future_limit_s
                    yield row, event_of(values, now_s=now_s, future_limit_s=limit_s)
                else:
                    yield row, record_of(self.type.limit, values)
            except (InvalidEvent, InvalidRecord) as error:
                yield row, error


@dataclass
class ImportSurvey:
    """Result of the first reading: numbers of rows, and the first bad ones with their places."""

    rows: int = 0
    bad: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, row: DatasetRow, parsed: Good | Exception) -> None:
        """Count a row."""
        self.rows += 1
        if isinstance(parsed, Exception):
            self.bad += 1
            if len(self.first) < MAX_SHOWN:
                self.first.append(f"{row.where}: {parsed}")

    @property
    def remark(self) -> str:
        """The rows that were left out, for the job's description; "" without any."""
        if not self.bad:
            return ""
        return f"{self.bad} of {self.rows} rows were left out: " + "; ".join(self.first)

    def check(self, location: str, allowed_share: float) -> None:
        """Raise `InvalidInput` if there are no rows, or if too large a share of them is bad."""
        if not self.rows:
            raise InvalidInput(f"{location} has no rows")
        if self.bad == self.rows or self.bad > allowed_share * self.rows:
            raise InvalidInput(
                f"{self.bad} of {self.rows} rows are bad, more than the share of"
                f" {allowed_share:g} that RECOMMENDER_IMPORT_BAD_SHARE allows; nothing was"
                f" imported: {'; '.join(self.first)}"
            )


async def import_dataset(context: JobContext) -> JobResult:
    """Bring the rows of an import into effect.

    Raises
    ------
    InvalidInput
        Columns are missing or too many rows are bad; nothing was sent then.
    """
    job = context.job.resource
    dataset = await context.resources.get(job.links[0])
    schema = await context.resources.get(dataset.links[1])
    source = ImportSource(
        job.data["dataSource"]["dataLocation"],
        parse_schema(schema.data["schema"]),
        dataset.data["datasetType"],
    )
    target = context.tenants.store(source.state_group(context.group))
    if "survey" not in context.checkpointed:
        found = await context.run_in_thread(_first_reading, context, source)
        has_imported = (await target.counts()).get("imported", 0) > 0
        await context.checkpoint(**found, has_imported=has_imported)
    survey = msgspec.convert(context.checkpointed["survey"], ImportSurvey)
    if source.has_events:
        # Named again: the creator of the dataset may have been interrupted, or be of a version
        # without contextual columns.
        group = source.state_group(context.group)
        if not source.is_of_actions:
            await context.tenants.name_columns(group, contextual(source.schema))
        await context.tenants.register(context.checkpointed["tracking_id"], group)
    await context.run_in_thread(_second_reading, context, source)
    store = context.tenants.store(context.settings.group)
    await wait_until_in_effect(context.settings, store, context.checkpointed["ends"])
    # A job that an earlier version began has no such mark.
    if job.data.get("importMode") == "FULL" and "has_imported" in context.checkpointed:
        ends = await _replace(context, source, target)
        await wait_until_in_effect(context.settings, store, ends)
    remarks = [await context.run_in_thread(_over_limits, context, source), survey.remark]
    if job.data.get("publishAttributionMetricsToS3"):
        await publish_import_report(
            context.resources,
            context.objects,
            context.tenants.store(context.group),
            job,
            _good_events(context, source),
            now_s=context.clock(),
        )
    LOG.info("%s: %d rows, %d bad", context.job.path, survey.rows, survey.bad)
    return JobResult(hidden={"row": survey.rows}, remark="; ".join(filter(None, remarks)))


async def _replace(context: JobContext, source: ImportSource, target: Store) -> Ends:
    """Remove what earlier imports of the dataset brought; gives the ends to wait for."""
    if not source.has_events:
        kind, group = source.type.limit, source.state_group(context.group)
        return await context.run_in_thread(replace_records, context, kind, group)
    if not context.checkpointed["has_imported"]:
        return {}
    return await replace_events(context, target, _good_messages(context, source))


def _first_reading(context: JobContext, source: ImportSource) -> dict[str, Any]:
    """Check every row; gives the first checkpoint. Blocking.

    Raises
    ------
    InvalidInput
        Columns are missing or too many rows are bad.
    """
    survey, done = ImportSurvey(), 0
    rows = source.open(context.objects, context.settings, now_s=context.clock())
    LOG.info("%s: %s", context.job.path, "; ".join(rows.source.notes))

    def on_bytes(n: int) -> None:
        nonlocal done
        done += n

    for row, parsed in _parsed(context, source, rows.read(on_bytes)):
        survey.add(row, parsed)
        if survey.rows % REPORT_EVERY == 0:
            step = f"rows checked ({done / 1e6:.1f} of {rows.n_bytes / 1e6:.1f} MB)"
            context.report_progress(step, survey.rows)
            if survey.rows % LOG_EVERY == 0:
                LOG.info("%s: %d %s, %d bad", context.job.path, survey.rows, step, survey.bad)
    survey.check(source.location, context.settings.import_bad_share)
    found = {
        "survey": msgspec.to_builtins(survey),
        "row": 0,
        "ends": current_ends(context.settings, source.type.topics),
        "letters": dead_letters.ends(context.settings),
    }
    # No other sender knows the tracking id, so it marks what this job has sent.
    return found | {"tracking_id": IMPORT_PREFIX + secrets.token_hex(16)}


def _second_reading(context: JobContext, source: ImportSource) -> None:
    """Send the good rows beyond the last checkpoint, with a checkpoint a chunk. Blocking."""
    row, total = context.checkpointed["row"], context.checkpointed["survey"]["rows"]
    send, ends = _event_sender(context) if source.has_events else _record_sender(context, source)
    context.report_progress("rows sent", row, total)
    read = source.open(context.objects, context.settings, now_s=context.clock()).read()
    rows = itertools.islice(_parsed(context, source, read), row, None)
    while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
        row += len(chunk)
        good = [parsed for _, parsed in chunk if not isinstance(parsed, Exception)]
        ends = ends_after(ends, send(good))
        context.report_progress("rows sent", row, total)
        if row % LOG_EVERY < CHUNK_ROWS:
            LOG.info("%s: %d of %d rows sent", context.job.path, row, total)
        context.run_on_loop(context.checkpoint(row=row, ends=ends))


def _event_sender(context: JobContext) -> tuple[SendChunk, Ends]:
    """A function that sends events once, and the ends of their topics to wait for. Blocking."""
    settings, tracking_id = context.settings, context.checkpointed["tracking_id"]
    ends: Ends = context.checkpointed["ends"]
    sent = event_ids_since(settings, ends, tracking_id)
    if sent:
        # They are of the first chunk to come, and must take effect like the rest of it.
        ends = current_ends(settings, DATASET_TYPES["INTERACTIONS"].topics)

    def send(chunk: list[Good]) -> list[Receipt]:
        tracker = context.tracker()
        events = [one for one in chunk if isinstance(one, PutEvents)]
        unsent = [one for one in events if one.event_list[0].event_id not in sent]
        return _receipts(
            [
                tracker.put_events(msgspec.structs.replace(message, tracking_id=tracking_id))
                for message in pack_by_user(unsent, EVENTS_PER_MESSAGE)
            ]
        )

    return send, ends


def _record_sender(context: JobContext, source: ImportSource) -> tuple[SendChunk, Ends]:
    """A function that sends metadata records, and the ends of their topic to wait for.

    Records that an interrupted runner sent are sent again: a record replaces itself.
    """

    def send(chunk: list[Good]) -> list[Receipt]:
        tracker = context.tracker()
        put = tracker.put_items if source.type.limit == "items" else tracker.put_users
        # One at a time: a call has all of its records in flight at once, however long they are.
        group, job = source.state_group(context.group), context.checkpointed.get("tracking_id", "")
        records = [one for one in chunk if isinstance(one, tuple)]
        return _receipts([put(group, [one], imported_by=job) for one in records])

    return send, context.checkpointed["ends"]


def _good_events(context: JobContext, source: ImportSource) -> Iterator[Event]:
    """The events of the good rows, in order; reads the files again, blocking."""
    return (message.event_list[0] for message in _good_messages(context, source))


def _good_messages(context: JobContext, source: ImportSource) -> Iterator[PutEvents]:
    """The messages of the good rows, in order; reads the files again, blocking."""
    read = source.open(context.objects, context.settings, now_s=context.clock()).read()
    for _, parsed in _parsed(context, source, read):
        if isinstance(parsed, PutEvents):
            yield parsed


def _receipts(futures: Sequence[Future[Receipt]]) -> list[Receipt]:
    """All receipts, once no message is in flight any more; raises the first failure then."""
    wait(futures)
    return [future.result() for future in futures]


def _parsed(
    context: JobContext, source: ImportSource, rows: Iterator[DatasetRow]
) -> Iterator[tuple[DatasetRow, Good | Exception]]:
    """The parsed rows, until the job is stopped."""
    return source.parsed(context.until_stopped(rows), context.settings, now_s=context.clock())


def _over_limits(context: JobContext, source: ImportSource) -> str:
    """Rows beyond the limits of the group, for the job's description; "" without any. Blocking."""
    counts: dict[dead_letters.Origin, int] = {}
    letters = dead_letters.since(context.settings, context.checkpointed["letters"])
    for letter in context.until_stopped(letters):
        if letter.reason == FULL and letter.group == source.state_group(context.group):
            # A dead letter that was written twice has one origin.
            counts[letter.source] = _imported_rows(context, source, letter)
    count, kind = sum(counts.values()), source.type.limit
    rows = "events on further items" if source.has_events else kind
    limit = f"RECOMMENDER_MAX_{kind.upper()}"
    return f"{count} {rows} went beyond {limit} and are dead letters" if count else ""


def _imported_rows(
    context: JobContext, source: ImportSource, letter: dead_letters.DeadLetter
) -> int:
    """Number of the import's rows in a dead letter; of metadata, those of any sender."""
    if source.has_events:
        raw = letter.raw()
        if tracking_id_of(raw) != context.checkpointed["tracking_id"]:
            return 0
        return len(parse(raw, now_s=context.clock(), future_limit_s=math.inf).event_list)
    return int(letter.source.topic == getattr(Topics.of(context.settings), source.type.limit))

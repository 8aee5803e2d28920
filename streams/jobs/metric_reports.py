"""Reports of metric attributions in S3: of events as they come, and of imports.

A report of events covers a span of Kafka: from the end of the last one to the end at the moment of
its plan. The plan is stored before anything is written, so that whoever carries it out, and however
often, writes the same file: every event is in one report. An event that was sent twice counts once,
where the two are in one span or in neighbouring ones. Counts hold no user's name, and stay when
users are erased.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from models.errors import InvalidEvent, RecommenderError
from models.events import Event, PutEvents, parse, tracking_id_of
from models.metadata_records import Properties
from models.personalize.metric_reports import MetricReport, lists_named, metric_of, source_of
from models.personalize.resources.registry import Registry
from models.personalize.resources.resource import Resource, index_name
from models.personalize.resources.resource_types import ResourcePath, resource_type_of
from models.personalize.resources.statuses import ACTIVE
from models.state.catalogue.metadata import item_properties
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.outcomes.served_outcomes import served_places
from models.state.store import Store
from models.state.tenants import Tenants
from models.tokens import TopicKind
from streams.jobs.resume import Ends, current_ends
from streams.kafka.consuming.offsets import messages, offsets_at
from streams.kafka.topics import Topics
from streams.object_store import Objects, join

SETTLE_S = 10.0
"""Time from a plan to its report, in which the lists that its events name take effect."""

CHUNK_EVENTS = 1000

MAX_SEEN = 1_000_000
"""Events that are remembered to count each once."""

PUT_EVENTS, BULK_IMPORT = "PutEvents", "BulkImport"
"""Import methods, in the names of files."""

KINDS: tuple[TopicKind, ...] = ("clicks", "purchases")

LOG = logging.getLogger(__name__)


class ReportPlan(msgspec.Struct, frozen=True):
    """A report that is to be written: where its span begins and ends, and what comes before it."""

    at: float
    before: dict[str, int]
    starts: dict[str, int]
    ends: dict[str, int]


async def publish_due_reports(
    resources: Registry,
    tenants: Tenants,
    objects: Objects,
    *,
    now_s: float,
) -> list[str]:
    """Plan the reports that are due, and write those that were planned; gives their addresses.

    Where a report cannot be written, the log says why, and it is tried again at the next call.

    Raises
    ------
    One of `redis_errors.AWAY_ERRORS`
        Redis is away.
    """
    written, after = [], 0
    while page := await resources.page("metric-attribution", after=after):
        after = page[-1].number
        for attribution in page:
            if attribution.status != ACTIVE or not _folder(attribution):
                continue
            try:
                written += await _publish(resources, tenants, objects, attribution, now_s)
            except AWAY_ERRORS:
                raise
            except RecommenderError as error:
                LOG.warning("%s: no report was written: %s", attribution.path, error)
            except Exception:
                # The runner that calls this has jobs of other groups to run.
                LOG.exception("%s: no report was written", attribution.path)
    return written


async def _publish(
    resources: Registry, tenants: Tenants, objects: Objects, attribution: Resource, now_s: float
) -> list[str]:
    settings = resources.settings
    stored = attribution.hidden.get("plan")
    if stored is None:
        last_s = attribution.hidden.get("reported_s", attribution.created_s)
        if now_s - last_s < settings.metric_report_s:
            return []
        plan = await asyncio.to_thread(_planned, resources, attribution, now_s)
        await _note(resources, attribution, plan=msgspec.to_builtins(plan))
        return []
    plan = msgspec.convert(stored, ReportPlan)
    if now_s - plan.at < SETTLE_S:
        return []
    group = ResourcePath.of(attribution.links[0]).name
    report = _report_of(attribution)
    tracking_ids = await _tracking_ids(resources, attribution.links[0])
    events = _events_of(resources, plan, tracking_ids, report)
    store = tenants.store(group)
    await _add_all(resources, store, report, events, now_s)
    name = f"AggregatedAttributionMetrics - {PUT_EVENTS} - {plan.at:.0f}.csv"
    urls = await _write(objects, store, report, join(_folder(attribution), name))
    await _note(
        resources, attribution, plan=None, before=plan.starts, ends=plan.ends, reported_s=plan.at
    )
    return urls


async def publish_import_report(
    resources: Registry,
    objects: Objects,
    store: Store,
    job: Resource,
    events: Iterator[Event],
    *,
    now_s: float,
) -> list[str]:
    """Write the report of an import's events, if its group has a metric attribution.

    Parameters
    ----------
    events
        Of the import's good rows; blocking.
    """
    attribution = await attribution_of(resources, job.links[1])
    if attribution is None or not _folder(attribution):
        return []
    report = _report_of(attribution)
    await _add_all(resources, store, report, events, now_s)
    at_ms = int(job.created_s * 1000)
    name = f"AggregatedAttributionMetrics - {BULK_IMPORT} - {at_ms}.csv"
    return await _write(objects, store, report, join(_folder(attribution), name))


async def attribution_of(resources: Registry, group_path: str) -> Resource | None:
    """The metric attribution of a dataset group, of which there is one at most; None without."""
    return await resources.newest(index_name("metric-attribution", group_path))


def _folder(attribution: Resource) -> str:
    config = attribution.data.get("metricsOutputConfig", {})
    return str(config.get("s3DataDestination", {}).get("path", ""))


def _report_of(attribution: Resource) -> MetricReport:
    return MetricReport([metric_of(one) for one in attribution.data["metrics"]])


def _planned(resources: Registry, attribution: Resource, now_s: float) -> ReportPlan:
    """The span from the last report, or from the creation, to the present ends; blocking."""
    settings = resources.settings
    starts: Ends | None = attribution.hidden.get("ends")
    if starts is None:
        topics = Topics.of(settings)
        kind_of = {getattr(topics, kind): kind for kind in KINDS}
        found = offsets_at(settings, list(kind_of), at_s=attribution.created_s)
        starts = {f"{kind_of[topic]}/{number}": at for (topic, number), at in found.items()}
    before = attribution.hidden.get("before", starts)
    return ReportPlan(now_s, before, starts, current_ends(settings, KINDS))


async def _note(resources: Registry, attribution: Resource, **hidden: Any) -> None:  # noqa: ANN401
    """Store members that the API does not show, unless another process was first."""
    before = attribution.hidden

    def noted(old: Resource) -> Resource:
        if old.hidden != before:
            return old
        return msgspec.structs.replace(old, hidden={**old.hidden, **hidden})

    await resources.change(attribution.path, noted)


async def _tracking_ids(resources: Registry, group_path: str) -> frozenset[str]:
    """Tracking ids of events that are sent: those of imports are not among them."""
    settings, found, after = resources.settings, set[str](), 0
    while page := await resources.page("event-tracker", group_path, after=after):
        after = page[-1].number
        found.update(tracker.data["trackingId"] for tracker in page)
    if ResourcePath.of(group_path).name == settings.group:
        found.add(settings.tracking_id)
    return frozenset(found)


def _events_of(
    resources: Registry, plan: ReportPlan, tracking_ids: frozenset[str], report: MetricReport
) -> Iterator[Event]:
    """The events of a plan's span that a metric counts, each once; blocking."""
    settings = resources.settings
    topics = Topics.of(settings)
    kind_of = {getattr(topics, kind): kind for kind in KINDS}
    starts = {
        (getattr(topics, kind), int(number)): offset
        for place, offset in plan.before.items()
        for kind, _, number in [place.partition("/")]
    }
    seen: dict[int, None] = {}
    for record in messages(settings, starts) if starts else ():
        place = f"{kind_of[record.topic]}/{record.partition}"
        raw = record.value or b""
        if record.offset >= plan.ends.get(place, 0):
            continue
        # Most events may be of other groups.
        if (tracking_id_of(raw) or settings.tracking_id) not in tracking_ids:
            continue
        message = _parsed(raw, plan.at, settings.future_limit_s)
        if message is None:
            continue
        for event in message.event_list:
            if not report.counts(event.event_type):
                continue
            identity = hash((message.user_id or message.session_id, event.event_id))
            if identity in seen:
                continue
            seen[identity] = None
            if len(seen) > MAX_SEEN:
                del seen[next(iter(seen))]
            if record.offset >= plan.starts.get(place, 0):
                yield event


def _parsed(raw: bytes, now_s: float, future_limit_s: float) -> PutEvents | None:
    """The events of a message; None for an erasure, and for what is a dead letter."""
    try:
        return parse(raw, now_s=now_s, future_limit_s=future_limit_s)
    except InvalidEvent:
        return None


async def _add_all(
    resources: Registry,
    store: Store,
    report: MetricReport,
    events: Iterator[Event],
    now_s: float,
) -> None:
    """Add events, which are read in a thread of their own, with their sources to a report."""
    loop = asyncio.get_running_loop()

    def add() -> None:
        while chunk := list(itertools.islice(events, CHUNK_EVENTS)):
            asked = _sources(resources, store, lists_named(chunk), now_s)
            sources = asyncio.run_coroutine_threadsafe(asked, loop).result()
            for event in chunk:
                report.add(event, source_of(event, sources))

    await asyncio.to_thread(add)


async def _sources(
    resources: Registry, store: Store, ids: Sequence[str], now_s: float
) -> dict[str, str]:
    """Source by list: the ARN of the campaign or recommender, else its placement, or recipe."""
    found = await served_places(store, ids, now_s=now_s)
    return {name: _source(resources.arn, *place) for name, place in found.items()}


def _source(arn: Callable[[str], str], placement: str, recipe: str) -> str:
    if placement and "/" in placement and resource_type_of(placement) is not None:
        return arn(placement)
    return placement or recipe


async def _write(objects: Objects, store: Store, report: MetricReport, url: str) -> list[str]:
    ids = report.item_ids
    known: dict[str, Properties | None] = {}
    for at in range(0, len(ids), CHUNK_EVENTS):
        some = ids[at : at + CHUNK_EVENTS]
        known.update(zip(some, await item_properties(store, some), strict=True))
    text = report.text(known)
    if not text:
        return []
    await asyncio.to_thread(_upload, objects, url, text)
    return [url]


def _upload(objects: Objects, url: str, text: str) -> None:
    with objects.writing(url) as stream:
        stream.write(text.encode())

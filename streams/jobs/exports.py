"""Dataset export jobs: the stored data of a dataset as CSV with the columns of its schema.

Interactions are those in the histories, with user, item, time and type; columns that are not stored
are empty. The mode says whether they are those that were imported in bulk, put singly, or both:
histories tell which events are imported, and Kafka which records are.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any

from models.action_groups import actions_group
from models.metadata_records import RecordKind
from models.personalize.datasets.dataset_schemas import (
    ACTION_TYPES,
    EVENT_TYPES_OF_DATASETS,
    ITEM_KEYS,
    parse_schema,
)
from models.personalize.resources.resource_types import ResourcePath
from models.state.catalogue.metadata import scan_item_properties, scan_user_properties
from models.state.store import Store
from models.state.users.interactions import histories
from streams.jobs.job import JobContext, JobResult
from streams.jobs.replacements import KeptRecords
from streams.jobs.resume import current_ends
from streams.object_store import join

CHUNK_ROWS = 1000

IS_IMPORTED = " is imported"
"""Member of a row of interactions that no schema can name: it is not written."""


async def export_dataset(context: JobContext) -> JobResult:
    """Write a dataset to `<path>/<job>/<type>.csv`."""
    job = context.job.resource
    dataset = await context.resources.get(job.links[0])
    schema = await context.resources.get(dataset.links[1])
    kind = dataset.data["datasetType"]
    columns = [column.name for column in parse_schema(schema.data["schema"]).columns]
    folder = job.data["jobOutput"]["s3DataDestination"]["path"]
    url = join(join(folder, ResourcePath.of(job.path).name), f"{kind.lower()}.csv")
    group = actions_group(context.group) if kind in ACTION_TYPES else context.group
    rows = _rows(context.tenants.store(group), kind)
    mode = job.data["ingestionMode"]
    if mode != "ALL":
        imported = None
        if kind not in EVENT_TYPES_OF_DATASETS:
            imported = await context.run_in_thread(_imported, context, kind, group)
        rows = _chosen(rows, imported, ITEM_KEYS[kind], is_bulk=mode == "BULK")
    count = await context.run_in_thread(_write, context, url, columns, rows)
    return JobResult(hidden={"rows": count})


def _write(
    context: JobContext, url: str, columns: list[str], rows: AsyncIterator[Mapping[str, Any]]
) -> int:
    count = 0
    with context.objects.writing(url) as stream:
        text = io.TextIOWrapper(stream, "utf-8", newline="", write_through=True)
        writer = csv.DictWriter(text, columns, extrasaction="ignore")
        writer.writeheader()
        for chunk in context.until_stopped(iter(lambda: context.run_on_loop(_chunk(rows)), [])):
            writer.writerows(chunk)
            count += len(chunk)
            context.report_progress("rows written", count)
        text.detach()
    return count


def _imported(context: JobContext, kind: str, group: str) -> set[str]:
    """Ids of the records of a dataset that are of an import. Blocking."""
    of_kind: RecordKind = "users" if kind == "USERS" else "items"
    ends = current_ends(context.settings, (of_kind,))
    return KeptRecords.read(context, of_kind, group, ends).of_imports()


async def _chosen(
    rows: AsyncIterator[Mapping[str, Any]],
    imported: Collection[str] | None,
    id_column: str,
    *,
    is_bulk: bool,
) -> AsyncIterator[Mapping[str, Any]]:
    """The rows that were imported, or the others; without ids of these, events say it."""
    async for row in rows:
        is_imported = row[IS_IMPORTED] if imported is None else row[id_column] in imported
        if is_imported is is_bulk:
            yield row


async def _chunk(rows: AsyncIterator[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    async for row in rows:
        found.append(row)
        if len(found) == CHUNK_ROWS:
            break
    return found


async def _rows(store: Store, kind: str) -> AsyncIterator[Mapping[str, Any]]:
    key = ITEM_KEYS[kind]
    if kind in EVENT_TYPES_OF_DATASETS:
        async for owner, own, _ in histories(store):
            for one in own:
                yield {
                    "USER_ID": owner.partition(":")[2],
                    key: one.item,
                    "TIMESTAMP": int(one.at_s),
                    "EVENT_TYPE": one.type,
                    IS_IMPORTED: one.is_imported,
                }
        return
    if kind == "USERS":
        async for user_id, properties in scan_user_properties(store):
            yield {"USER_ID": user_id, **properties}
        return
    async for rows in scan_item_properties(store):
        names = await store.item_ids([index for index, _ in rows])
        for item_id, (_, properties) in zip(names, rows, strict=True):
            if item_id is not None:
                yield {key: item_id, **properties}

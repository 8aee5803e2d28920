"""Dataset export jobs: the stored data of a dataset as CSV with the columns of its schema.

Interactions are those in the histories, with user, item, time and type; columns that are not stored
are empty. Imported and streamed data are not told apart: every ingestion mode exports all.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Mapping
from typing import Any

from models.personalize.dataset_schemas import parse_schema
from models.personalize.resource_types import ResourcePath
from models.state.interactions import histories
from models.state.metadata import scan_item_properties, scan_user_properties
from models.state.store import Store
from streams.jobs.job import JobContext, JobResult
from streams.object_store import join

CHUNK_ROWS = 1000


async def export_dataset(context: JobContext) -> JobResult:
    """Write a dataset to `<path>/<job>/<type>.csv`."""
    job = context.job.resource
    dataset = await context.resources.get(job.links[0])
    schema = await context.resources.get(dataset.links[1])
    kind = dataset.data["datasetType"]
    columns = [column.name for column in parse_schema(schema.data["schema"]).columns]
    folder = job.data["jobOutput"]["s3DataDestination"]["path"]
    url = join(join(folder, ResourcePath.of(job.path).name), f"{kind.lower()}.csv")
    rows = _rows(context.tenants.store(context.group), kind)
    count = await context.run_in_thread(_write, context, url, columns, rows)
    return JobResult(hidden={"rows": count})


def _write(
    context: JobContext, url: str, columns: list[str], rows: AsyncIterator[Mapping[str, Any]]
) -> int:
    count = 0
    with context.objects.writing(url) as stream:
        text = io.TextIOWrapper(stream, "utf-8", newline="", write_through=True)
        writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for chunk in context.until_stopped(iter(lambda: context.run_on_loop(_chunk(rows)), [])):
            writer.writerows(chunk)
            count += len(chunk)
            context.report_progress("rows written", count)
        text.detach()
    return count


async def _chunk(rows: AsyncIterator[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    async for row in rows:
        found.append(row)
        if len(found) == CHUNK_ROWS:
            break
    return found


async def _rows(store: Store, kind: str) -> AsyncIterator[Mapping[str, Any]]:
    if kind == "INTERACTIONS":
        async for owner, own, _ in histories(store):
            for one in own:
                yield {
                    "USER_ID": owner.partition(":")[2],
                    "ITEM_ID": one.item,
                    "TIMESTAMP": int(one.at_s),
                    "EVENT_TYPE": one.type,
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
                yield {"ITEM_ID": item_id, **properties}

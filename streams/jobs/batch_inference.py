"""Batch inference and segment jobs: one output line for each input line, in the same order.

An output file appears whole. A runner that resumes a job begins at the first input file without an
output file.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from models.errors import InvalidInput
from models.filters.filter import Filter, check_value_names, parse_filter_expression
from models.personalize.batches.batch_lines import (
    MAX_LINE_BYTES,
    InferenceRequest,
    Rejected,
    SegmentBy,
    SegmentRequest,
    inference_answer,
    inference_requests,
    output_key,
    refusal,
    segment_answer,
    segment_requests,
    themed_answer,
    themed_refusal,
    themed_requests,
)
from models.personalize.batches.themes import (
    Background,
    WriteTitle,
    background,
    theme_of,
    themed_item,
    title_writer,
)
from models.personalize.recipe_answers import RecipeAnswer, answer, is_scored, scores_of
from models.personalize.recipe_requests import RecipeRequest
from models.personalize.recipes import Recipe, recipe_of
from models.personalize.resources.resource_types import path_of
from models.personalize.training.solution_options import answer_options
from models.serving.answer_options import AnswerOptions
from models.serving.merchandising.user_segments import filter_users, users_of_item, users_of_items
from models.serving.recommender import Recommender
from models.state.catalogue.metadata import item_properties, properties_of
from streams.jobs.job import JobContext, JobResult

CHUNK_LINES = 64
"""Lines answered concurrently."""

_S3 = "s3://"

THEMED = "THEME_GENERATION"

BACKGROUND_ITEMS = 2000
"""Items of the catalogue, the first ones, that themes are compared with."""

LineRequest = InferenceRequest | SegmentRequest
AnswerLine = Callable[[Any], Awaitable[bytes]]
RefuseLine = Callable[[bytes, str], bytes]
ReadLines = Callable[[Iterator[bytes]], Iterator[LineRequest | Rejected]]


@dataclass(frozen=True)
class _Batch:
    """The recommender, recipe and filter that answer all lines of a job."""

    recommender: Recommender
    recipe: Recipe
    filter: Filter | None
    length: int
    clock: Callable[[], float]
    options: AnswerOptions
    trained: Mapping[str, float] | None

    async def items(self, line: InferenceRequest) -> bytes:
        """The output line of a request for items."""
        candidates, names = await self._answer(line)
        if not is_scored(self.recipe):
            return inference_answer(line, names)
        scores = scores_of(candidates)
        return inference_answer(line, names, [scores.get(name, 0.0) for name in names])

    async def _answer(self, line: InferenceRequest) -> RecipeAnswer:
        request = RecipeRequest(
            self.recipe,
            line.user_id or None,
            line.item_id or None,
            self.length,
            item_ids=line.item_ids,
            filter=self.filter,
            filter_values=line.filter_values,
            options=self.options,
            trained=self.trained,
        )
        return await answer(self.recommender, request, now_s=self.clock())

    async def themed_items(
        self, line: InferenceRequest, name: str, known: Background, write_title: WriteTitle | None
    ) -> bytes:
        """The output line of a request for similar items, with their theme."""
        _, names = await self._answer(line)
        wanted = [line.item_id, *names]
        rows = await item_properties(self.recommender.store, wanted)
        asked, *others = [
            themed_item(item_id, row, name) for item_id, row in zip(wanted, rows, strict=True)
        ]
        # In a thread: a title may come from a model that is asked over the network.
        theme = await asyncio.to_thread(theme_of, asked, others, known, write_title)
        return themed_answer(line, *theme)

    async def users(self, line: SegmentRequest) -> bytes:
        """The output line of a request for users."""
        check_value_names(line.filter_values, () if self.filter is None else (self.filter,))
        if line.query is None:
            users = await users_of_item(self.recommender, line.item_id, now_s=self.clock())
        else:
            users = await users_of_items(self.recommender, line.query)
        if self.filter is not None:
            users = await filter_users(
                self.recommender.store, self.filter, users, line.filter_values
            )
        return segment_answer(line, users[: self.length])


async def infer(context: JobContext) -> JobResult:
    """Recommend items for each input line."""
    batch = await _batch(context, "ItemID")
    kind: Any = batch.recipe.type
    data = context.job.resource.data
    if data.get("batchInferenceJobMode") == THEMED:
        name = data["themeGenerationConfig"]["fieldsForThemeGeneration"]["itemName"]
        return await _infer_themes(context, batch, name)

    def parse(lines: Iterator[bytes]) -> Iterator[InferenceRequest | Rejected]:
        return inference_requests(lines, kind)

    return await _run(context, parse, batch.items)


async def _infer_themes(context: JobContext, batch: _Batch, name: str) -> JobResult:
    """Recommend similar items for each input line, with a theme; items are named by a column."""
    store, settings = batch.recommender.store, context.settings
    write_title = title_writer(settings.theme_titles)
    rows = await properties_of(store, await store.some_items(BACKGROUND_ITEMS))
    known = background(themed_item("", row, name) for row in rows if row is not None)

    async def answer_line(line: InferenceRequest) -> bytes:
        return await batch.themed_items(line, name, known, write_title)

    return await _run(context, themed_requests, answer_line, refuse=themed_refusal)


async def segment(context: JobContext) -> JobResult:
    """Find the user segment of each input line."""
    batch = await _batch(context, "UserID")
    by: SegmentBy = "attributes" if "attribute" in batch.recipe.name else "items"

    def parse(lines: Iterator[bytes]) -> Iterator[SegmentRequest | Rejected]:
        return segment_requests(lines, by)

    return await _run(context, parse, batch.users)


async def _batch(context: JobContext, target: str) -> _Batch:
    data = context.job.resource.data
    version = await context.resources.get(context.job.resource.links[0])
    found = None
    if "filterArn" in data:
        stored = await context.resources.get(path_of(data["filterArn"]))
        found = parse_filter_expression(stored.data["filterExpression"])
        if found.target != target:
            raise InvalidInput(f"{data['filterArn']} chooses by {found.target}, not by {target}")
    recipe = recipe_of(version.data["recipeArn"])
    recommender = context.recommenders().of(context.group)
    options = answer_options(recipe, version.data, data.get("batchInferenceJobConfig", {}))
    trained = version.hidden.get("items")
    return _Batch(recommender, recipe, found, data["numResults"], context.clock, options, trained)


async def _run(
    context: JobContext,
    parse: ReadLines,
    answer_line: AnswerLine,
    *,
    refuse: RefuseLine = refusal,
) -> JobResult:
    data = context.job.resource.data
    source = data["jobInput"]["s3DataSource"]["path"]
    target = data["jobOutput"]["s3DataDestination"]["path"]
    # Output files below the input folder are no input.
    folder = f"{target.rstrip('/')}/"
    files = (each for each in context.objects.find(source) if not each.url.startswith(folder))
    number, lines, refused = (
        context.checkpointed.get(name, 0) for name in ("files", "lines", "refused")
    )
    left = itertools.islice(files, number, None)
    while (each := await context.run_in_thread(next, left, None)) is not None:
        url = _output(each.url, source, target)
        counts = await context.run_in_thread(
            _answer_file, context, each.url, url, parse, answer_line, refuse
        )
        number, lines, refused = number + 1, lines + counts[0], refused + counts[1]
        await context.checkpoint(files=number, lines=lines, refused=refused)
    remark = f"{refused} of {lines} lines have no answer; the error of each says why"
    return JobResult(remark=remark if refused else "")


def _answer_file(
    context: JobContext,
    source: str,
    target: str,
    parse: ReadLines,
    answer_line: AnswerLine,
    refuse: RefuseLine,
) -> tuple[int, int]:
    """Answer the lines of a file; gives the numbers of all lines and of lines without answer."""
    n_lines = n_refused = 0

    async def answers(chunk: Sequence[LineRequest | Rejected]) -> list[tuple[bytes, bool]]:
        return await asyncio.gather(*(_answer(one, answer_line, refuse) for one in chunk))

    before = context.checkpointed.get("lines", 0)
    with context.objects.open(source) as stream, context.objects.writing(target) as written:
        requests = context.until_stopped(parse(_lines(stream)))
        while chunk := list(itertools.islice(requests, CHUNK_LINES)):
            for line, is_answered in context.run_on_loop(answers(chunk)):
                n_lines += 1
                n_refused += not is_answered
                written.write(line + b"\n")
            context.report_progress("lines answered", before + n_lines)
    return n_lines, n_refused


async def _answer(
    line: LineRequest | Rejected, answer_line: AnswerLine, refuse: RefuseLine
) -> tuple[bytes, bool]:
    """The output line of a request, or its error line; and True for an answer."""
    if isinstance(line, Rejected):
        return refuse(line.input, line.error), False
    try:
        return await answer_line(line), True
    except InvalidInput as error:
        return refuse(line.input, str(error)), False


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a stream; one that is too long is cut just beyond the limit."""
    while line := stream.readline(MAX_LINE_BYTES + 2):
        yield line
        rest = line
        while len(line) > MAX_LINE_BYTES and rest and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES)


def _output(url: str, source: str, target: str) -> str:
    """URL of the output file of an input file.

    >>> _output("s3://in/jobs/users.json", "s3://in/jobs/", "s3://out/answers/")
    's3://out/answers/users.json.out'
    """
    (_, key), (_, prefix), (bucket, folder) = map(_key, (url, source, target))
    return f"{_S3}{bucket}/{output_key(key, prefix, folder)}"


def _key(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix(_S3).partition("/")
    return bucket, key

"""Batch inference and segment jobs: one output line for each input line, in the same order.

An output file appears whole. A runner that resumes a job begins at the first input file without an
output file.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from models.errors import InvalidInput
from models.filters.filter import Filter, parse_filter_expression
from models.personalize.batch_lines import (
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
)
from models.personalize.recipe_answers import RecipeRequest, answer, is_scored, scores_of
from models.personalize.recipes import Recipe, recipe_of
from models.personalize.resource_types import path_of
from models.personalize.user_segments import filter_users, users_of_item, users_of_items
from models.serving.recommender import Recommender
from streams.jobs.job import JobContext, JobResult

CHUNK_LINES = 64
"""Lines answered concurrently."""

_S3 = "s3://"

LineRequest = InferenceRequest | SegmentRequest
AnswerLine = Callable[[Any], Awaitable[bytes]]
ReadLines = Callable[[Iterator[bytes]], Iterator[LineRequest | Rejected]]


@dataclass(frozen=True)
class _Batch:
    """The recommender, recipe and filter that answer all lines of a job."""

    recommender: Recommender
    recipe: Recipe
    filter: Filter | None
    length: int
    clock: Callable[[], float]

    async def items(self, line: InferenceRequest) -> bytes:
        """The output line of a request for items."""
        request = RecipeRequest(
            self.recipe,
            line.user_id or None,
            line.item_id or None,
            self.length,
            item_ids=line.item_ids,
            filter=self.filter,
            filter_values=line.filter_values,
        )
        candidates, names = await answer(self.recommender, request, now_s=self.clock())
        if not is_scored(self.recipe):
            return inference_answer(line, names)
        scores = scores_of(candidates)
        return inference_answer(line, names, [scores.get(name, 0.0) for name in names])

    async def users(self, line: SegmentRequest) -> bytes:
        """The output line of a request for users."""
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

    def parse(lines: Iterator[bytes]) -> Iterator[InferenceRequest | Rejected]:
        return inference_requests(lines, kind)

    return await _run(context, parse, batch.items)


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
    return _Batch(recommender, recipe, found, data["numResults"], context.clock)


async def _run(context: JobContext, parse: ReadLines, answer_line: AnswerLine) -> JobResult:
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
            _answer_file, context, each.url, url, parse, answer_line
        )
        number, lines, refused = number + 1, lines + counts[0], refused + counts[1]
        await context.checkpoint(files=number, lines=lines, refused=refused)
    remark = f"{refused} of {lines} lines have no answer; the error of each says why"
    return JobResult(remark=remark if refused else "")


def _answer_file(
    context: JobContext, source: str, target: str, parse: ReadLines, answer_line: AnswerLine
) -> tuple[int, int]:
    """Answer the lines of a file; gives the numbers of all lines and of lines without answer."""
    n_lines = n_refused = 0

    async def answers(chunk: Sequence[LineRequest | Rejected]) -> list[tuple[bytes, bool]]:
        return await asyncio.gather(*(_answer(one, answer_line) for one in chunk))

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


async def _answer(line: LineRequest | Rejected, answer_line: AnswerLine) -> tuple[bytes, bool]:
    """The output line of a request, or its error line; and True for an answer."""
    if isinstance(line, Rejected):
        return refusal(line.input, line.error), False
    try:
        return await answer_line(line), True
    except InvalidInput as error:
        return refusal(line.input, str(error)), False


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

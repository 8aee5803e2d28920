"""Batch inference and segment jobs: each line of the input answered, in the input's order.

A file's answers appear whole. Who goes on with a job begins at its first file without an answer.
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
"""Lines answered at once."""

_S3 = "s3://"

LineRequest = InferenceRequest | SegmentRequest
AnswerLine = Callable[[Any], Awaitable[bytes]]
ReadLines = Callable[[Iterator[bytes]], Iterator[LineRequest | Rejected]]


@dataclass(frozen=True)
class _Batch:
    """What every line of a job is answered by."""

    recommender: Recommender
    recipe: Recipe
    found: Filter | None
    length: int
    clock: Callable[[], float]

    async def items(self, asked: InferenceRequest) -> bytes:
        """The output line of a request for items."""
        request = RecipeRequest(
            self.recipe,
            asked.user_id or None,
            asked.item_id or None,
            self.length,
            item_ids=asked.item_ids,
            filter=self.found,
            filter_values=asked.filter_values,
        )
        candidates, names = await answer(self.recommender, request, now_s=self.clock())
        if not is_scored(self.recipe):
            return inference_answer(asked, names)
        scores = scores_of(candidates)
        return inference_answer(asked, names, [scores.get(name, 0.0) for name in names])

    async def users(self, asked: SegmentRequest) -> bytes:
        """The line that answers a question for users."""
        if asked.query is None:
            users = await users_of_item(self.recommender, asked.item_id, now_s=self.clock())
        else:
            users = await users_of_items(self.recommender, asked.query)
        if self.found is not None:
            users = await filter_users(
                self.recommender.store, self.found, users, asked.filter_values
            )
        return segment_answer(asked, users[: self.length])


async def infer(context: JobContext) -> JobResult:
    """Recommend items for each line of the input."""
    batch = await _batch(context, "ItemID")
    kind: Any = batch.recipe.type

    def reading(lines: Iterator[bytes]) -> Iterator[InferenceRequest | Rejected]:
        return inference_requests(lines, kind)

    return await _run(context, reading, batch.items)


async def segment(context: JobContext) -> JobResult:
    """Find the users that each line of the input asks for."""
    batch = await _batch(context, "UserID")
    by: SegmentBy = "attributes" if "attribute" in batch.recipe.name else "items"

    def reading(lines: Iterator[bytes]) -> Iterator[SegmentRequest | Rejected]:
        return segment_requests(lines, by)

    return await _run(context, reading, batch.users)


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
    recommender = context.tenants.recommender(context.group)
    return _Batch(recommender, recipe, found, data["numResults"], context.clock)


async def _run(context: JobContext, reading: ReadLines, answering: AnswerLine) -> JobResult:
    data = context.job.resource.data
    source = data["jobInput"]["s3DataSource"]["path"]
    target = data["jobOutput"]["s3DataDestination"]["path"]
    # Answers that lie among the questions are none of them.
    folder = f"{target.rstrip('/')}/"
    files = (each for each in context.objects.find(source) if not each.url.startswith(folder))
    number, lines, refused = (
        context.checkpointed.get(name, 0) for name in ("files", "lines", "refused")
    )
    left = itertools.islice(files, number, None)
    while (each := await context.run_in_thread(next, left, None)) is not None:
        url = _output(each.url, source, target)
        counts = await context.run_in_thread(
            _answer_file, context, each.url, url, reading, answering
        )
        number, lines, refused = number + 1, lines + counts[0], refused + counts[1]
        await context.checkpoint(files=number, lines=lines, refused=refused)
    remark = f"{refused} of {lines} lines have no answer; the error of each says why"
    return JobResult(remark=remark if refused else "")


def _answer_file(
    context: JobContext, source: str, target: str, reading: ReadLines, answering: AnswerLine
) -> tuple[int, int]:
    """Answer the lines of a file; gives how many there were, and how many have no answer."""
    n_lines = n_refused = 0

    async def answers(asked: Sequence[LineRequest | Rejected]) -> list[tuple[bytes, bool]]:
        return await asyncio.gather(*(_answer(one, answering) for one in asked))

    before = context.checkpointed.get("lines", 0)
    with context.objects.open(source) as stream, context.objects.writing(target) as written:
        questions = context.until_stopped(reading(_lines(stream)))
        while asked := list(itertools.islice(questions, CHUNK_LINES)):
            for line, is_answered in context.run_on_loop(answers(asked)):
                n_lines += 1
                n_refused += not is_answered
                written.write(line + b"\n")
            context.report_progress("lines answered", before + n_lines)
    return n_lines, n_refused


async def _answer(asked: LineRequest | Rejected, answering: AnswerLine) -> tuple[bytes, bool]:
    """The line that answers, and whether it does; or says why there is no answer."""
    if isinstance(asked, Rejected):
        return refusal(asked.input, asked.error), False
    try:
        return await answering(asked), True
    except InvalidInput as error:
        return refusal(asked.input, str(error)), False


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines; of one that is too long, so much that it is seen to be."""
    while line := stream.readline(MAX_LINE_BYTES + 2):
        yield line
        rest = line
        while len(line) > MAX_LINE_BYTES and rest and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES)


def _output(url: str, source: str, target: str) -> str:
    """Where the answers to the questions in an object go.

    >>> _output("s3://in/jobs/users.json", "s3://in/jobs/", "s3://out/answers/")
    's3://out/answers/users.json.out'
    """
    (_, key), (_, prefix), (bucket, folder) = map(_key, (url, source, target))
    return f"{_S3}{bucket}/{output_key(key, prefix, folder)}"


def _key(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix(_S3).partition("/")
    return bucket, key

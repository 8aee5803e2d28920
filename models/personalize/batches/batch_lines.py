"""Lines of batch jobs in Amazon Personalize's formats: requests, and answers to them.

A job goes on after a bad line: reading gives a `Rejected` for it, and its answer has the error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from models.errors import InvalidInput
from models.filters import attribute_queries
from models.filters.attribute_queries import AttributeQuery

RecipeKind = Literal[
    "USER_PERSONALIZATION", "POPULAR_ITEMS", "PERSONALIZED_RANKING", "RELATED_ITEMS"
]
SegmentBy = Literal["items", "attributes"]
"""Input of a segmentation recipe: aws-item-affinity, or aws-item-attribute-affinity."""

MAX_LINE_BYTES = 1024 * 1024
MAX_SEGMENTS: Mapping[SegmentBy, int] = {"items": 500, "attributes": 10}
"""Requests in a segment job, at most."""

MAX_THEMES = 100
"""Items whose similar ones get a theme in one file, at most."""

MAX_ECHO_CHARACTERS = 1000
"""Characters that an answer repeats of a line that is not JSON."""

_NEEDS: Mapping[RecipeKind | SegmentBy, tuple[str, ...]] = {
    "USER_PERSONALIZATION": ("user_id",),
    "POPULAR_ITEMS": ("user_id",),
    "PERSONALIZED_RANKING": ("user_id", "item_list"),
    "RELATED_ITEMS": ("item_id",),
    "items": ("item_id",),
    "attributes": ("item_attributes",),
}

# An id that a data pipeline wrote as a number is the same id.
_Id = (
    Annotated[str, Meta(min_length=1, max_length=256)]
    | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
)
_Name = Annotated[str, Meta(max_length=50)]
_Value = Annotated[str, Meta(max_length=1000)]


class InferenceRequest(NamedTuple):
    """A request for items; absent members are empty.

    Attributes
    ----------
    input
        The line itself, JSON.
    """

    input: bytes
    user_id: str
    item_id: str
    item_ids: tuple[str, ...]
    filter_values: dict[str, str]


class SegmentRequest(NamedTuple):
    """A request for users: by an item, or by attributes of items.

    Attributes
    ----------
    input
        The line itself, JSON.
    item_attributes
        The query as written.
    """

    input: bytes
    item_id: str
    item_attributes: str
    query: AttributeQuery | None
    filter_values: dict[str, str]


class Rejected(NamedTuple):
    """An invalid line: itself, or its beginning as a JSON text, and the error."""

    input: bytes
    error: str


class _Line(msgspec.Struct, rename="camel"):
    user_id: _Id | None = None
    item_id: _Id | None = None
    item_list: Annotated[list[_Id], Meta(min_length=1, max_length=500)] | None = None
    item_attributes: str | None = None
    filter_values: Annotated[dict[_Name, _Value], Meta(max_length=25)] = {}


BatchRequest = TypeVar("BatchRequest")

_decoder = msgspec.json.Decoder(_Line)
_encode = msgspec.json.Encoder().encode


def inference_requests(
    lines: Iterable[bytes], kind: RecipeKind
) -> Iterator[InferenceRequest | Rejected]:
    """Requests of a batch inference job, in their order; blank lines are skipped.

    >>> good, bad = inference_requests([b'{"userId": "46"}', b'{"itemId": "7"}'], "POPULAR_ITEMS")
    >>> good.user_id, bad.error
    ('46', 'userId is missing')
    """
    return _requests(lines, partial(_inference, kind))


def themed_requests(lines: Iterable[bytes]) -> Iterator[InferenceRequest | Rejected]:
    """Requests for the themes of items, in their order; blank lines are skipped.

    Raises
    ------
    InvalidInput
        At the first request beyond `MAX_THEMES`.
    """
    for n, request in enumerate(inference_requests(lines, "RELATED_ITEMS")):
        if n == MAX_THEMES:
            raise InvalidInput(f"a file of a job with themes may name {n} items, there are more")
        yield request


def segment_requests(lines: Iterable[bytes], by: SegmentBy) -> Iterator[SegmentRequest | Rejected]:
    r"""Requests of a batch segment job, in their order; blank lines are skipped.

    Raises
    ------
    InvalidInput
        At the first request beyond `MAX_SEGMENTS`.

    Examples
    --------
    >>> line = b'{"itemAttributes": "ITEMS.genre = \\"Comedy\\""}'
    >>> next(segment_requests([line], "attributes")).item_attributes
    'ITEMS.genre = "Comedy"'
    """
    for n, request in enumerate(_requests(lines, partial(_segment, by))):
        if n == MAX_SEGMENTS[by]:
            raise InvalidInput(f"a segment job by {by} may ask {n} questions, there are more")
        yield request


def inference_answer(
    request: InferenceRequest, items: Sequence[str], scores: Sequence[float] | None = None
) -> bytes:
    """Answer to a request for items: a line, without its end.

    Parameters
    ----------
    scores
        Of the items, in their order; None for recipes without scores.
    """
    output = {"recommendedItems": items} | ({} if scores is None else {"scores": scores})
    return _encode({"input": msgspec.Raw(request.input), "output": output, "error": None})


def themed_answer(
    request: InferenceRequest, title: str, items: Sequence[str], relevances: Sequence[float]
) -> bytes:
    """Answer to a request for similar items with their theme: a line, without its end."""
    output = {
        "recommendedItems": items,
        "theme": title,
        "itemsThemeRelevanceScores": relevances,
    }
    return _encode({"input": msgspec.Raw(request.input), "output": output})


def themed_refusal(line: bytes, error: str) -> bytes:
    """Answer to such a request that failed: readers look whether there is an output."""
    return _encode({"input": msgspec.Raw(line), "error": error})


def segment_answer(request: SegmentRequest, users: Sequence[str]) -> bytes:
    """Answer to a request for users: a line, without its end."""
    output = {"recommendedUsers": users}
    if request.query is not None:
        return _encode({"itemAttributes": request.item_attributes, "output": output})
    return _encode({"input": msgspec.Raw(request.input), "output": output})


def refusal(line: bytes, error: str) -> bytes:
    """Answer to a request, JSON, that failed: a line with the error, without its end."""
    return _encode({"input": msgspec.Raw(line), "output": None, "error": error})


def output_key(key: str, input_prefix: str, output_prefix: str) -> str:
    """Key of the answers to the requests at `key`.

    The output has the folders of the input, so that files of equal names stay apart.

    >>> output_key("jobs/in/de/users.json", "jobs/in/", "jobs/out")
    'jobs/out/de/users.json.out'
    >>> output_key("in/users.json", "in/users.json", "out/")
    'out/users.json.out'
    """
    folder = input_prefix[: input_prefix.rfind("/") + 1]
    return f"{output_prefix.rstrip('/')}/{key.removeprefix(folder)}.out".removeprefix("/")


def _requests(
    lines: Iterable[bytes], ask: Callable[[bytes, _Line], BatchRequest]
) -> Iterator[BatchRequest | Rejected]:
    return (_request(line.strip(), ask) for line in lines if line.strip())


def _request(line: bytes, ask: Callable[[bytes, _Line], BatchRequest]) -> BatchRequest | Rejected:
    if len(line) > MAX_LINE_BYTES:
        return Rejected(_beginning(line), f"the line has more than {MAX_LINE_BYTES} bytes")
    try:
        # As text: members that the decoder skips must be UTF-8 too, since the answer repeats them.
        return ask(line, _decoder.decode(line.decode()))
    except (msgspec.ValidationError, InvalidInput) as error:
        return Rejected(_echo(line), str(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Rejected(_beginning(line), str(error))


def _inference(kind: RecipeKind, line: bytes, said: _Line) -> InferenceRequest:
    _check(kind, said)
    return InferenceRequest(
        line,
        "" if said.user_id is None else str(said.user_id),
        "" if said.item_id is None else str(said.item_id),
        tuple(map(str, said.item_list or ())),
        said.filter_values,
    )


def _segment(by: SegmentBy, line: bytes, said: _Line) -> SegmentRequest:
    _check(by, said)
    if by == "items":
        return SegmentRequest(line, str(said.item_id), "", None, said.filter_values)
    text = said.item_attributes or ""
    return SegmentRequest(
        line, "", text, attribute_queries.parse_attribute_query(text), said.filter_values
    )


def _check(asked: RecipeKind | SegmentBy, said: _Line) -> None:
    for name in _NEEDS[asked]:
        if getattr(said, name) is None:
            member = _Line.__struct_encode_fields__[_Line.__struct_fields__.index(name)]
            raise InvalidInput(f"{member} is missing")


def _echo(line: bytes) -> bytes:
    """The line if it is JSON, else its beginning."""
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return _beginning(line)
    return line


def _beginning(line: bytes) -> bytes:
    """The beginning of a line that is not JSON, as a JSON text."""
    text = line[: 4 * MAX_ECHO_CHARACTERS].decode(errors="replace")
    return _encode(text[:MAX_ECHO_CHARACTERS])

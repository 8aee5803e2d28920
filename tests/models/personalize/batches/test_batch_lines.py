"""Lines of batch jobs: requests and answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidInput
from models.personalize.batches.batch_lines import (
    MAX_LINE_BYTES,
    MAX_SEGMENTS,
    InferenceRequest,
    RecipeKind,
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

pytestmark = pytest.mark.unit


def asked(line: str | bytes, kind: RecipeKind = "USER_PERSONALIZATION") -> Any:
    """Request in one line of an inference job."""
    (request,) = inference_requests([line if isinstance(line, bytes) else line.encode()], kind)
    return request


def segment(line: str, by: SegmentBy = "items") -> Any:
    """Request in one line of a segment job."""
    (request,) = segment_requests([line.encode()], by)
    return request


GENRES = '{"GENRES": "\\"horror\\",\\"comedy\\""}'


def test_inference_lines() -> None:
    """The forms of Amazon's guide, for each kind of recipe."""
    users = f'{{"userId": "4638", "filterValues": {GENRES}}}'
    ranking = '{"userId": "891", "itemList": ["27", "886"]}'

    assert asked(users) == InferenceRequest(
        users.encode(), "4638", "", (), {"GENRES": '"horror","comedy"'}
    )
    assert asked(users, "POPULAR_ITEMS").user_id == "4638"
    assert asked('{"itemId": "105"}', "RELATED_ITEMS").item_id == "105"
    assert asked(ranking, "PERSONALIZED_RANKING").item_ids == ("27", "886")


def test_ids_may_be_numbers_and_other_members_are_ignored() -> None:
    """A number is the same id as its text; both ids may be present."""
    one = asked('{"userId": 4638, "itemId": -7, "context": {"DEVICE": ["a"]}}')

    assert (one.user_id, one.item_id) == ("4638", "-7")
    assert asked('{"userId":1,"itemList":[2,"3"]}', "PERSONALIZED_RANKING").item_ids == ("2", "3")


def test_blank_lines_are_skipped() -> None:
    """Ends of lines and empty lines do not count; the order stays."""
    lines = [b"\n", b'{"userId":"a"}\r\n', b"  ", b"nonsense", b'{"userId":"b"}']
    found = list(inference_requests(lines, "USER_PERSONALIZATION"))

    assert [type(one) for one in found] == [InferenceRequest, Rejected, InferenceRequest]


REJECTED: list[tuple[str | bytes, RecipeKind, str, Any]] = [
    ("{}", "USER_PERSONALIZATION", "userId is missing", {}),
    ('{"itemId":"1"}', "USER_PERSONALIZATION", "userId is missing", {"itemId": "1"}),
    ('{"userId":null}', "USER_PERSONALIZATION", "userId is missing", {"userId": None}),
    ('{"userId":"1"}', "RELATED_ITEMS", "itemId is missing", {"userId": "1"}),
    ('{"userId":"1"}', "PERSONALIZED_RANKING", "itemList is missing", {"userId": "1"}),
    ('{"userId":""}', "USER_PERSONALIZATION", "length >= 1 - at `$.userId`", {"userId": ""}),
    ('{"userId":true}', "USER_PERSONALIZATION", "got `bool` - at `$.userId`", {"userId": True}),
    ('{"userId":1.0}', "USER_PERSONALIZATION", "got `float` - at `$.userId`", {"userId": 1.0}),
    ('{"userId":"a","itemList":[]}', "PERSONALIZED_RANKING", "length >= 1", ...),
    (
        json.dumps({"userId": "a", "itemList": ["i"] * 501}),
        "PERSONALIZED_RANKING",
        "length <= 500 - at `$.itemList`",
        ...,
    ),
    (json.dumps({"userId": "é" * 257}), "USER_PERSONALIZATION", "length <= 256", ...),
    ('{"userId":"1","filterValues":{"G":7}}', "USER_PERSONALIZATION", "got `int`", ...),
    ('["1"]', "USER_PERSONALIZATION", "Expected `object`, got `array`", ["1"]),
    ("1", "USER_PERSONALIZATION", "Expected `object`, got `int`", 1),
    ('{"userId":"1"', "USER_PERSONALIZATION", "truncated", '{"userId":"1"'),
    ('{"userId":1} {"userId":2}', "USER_PERSONALIZATION", "malformed", '{"userId":1} {"userId":2}'),
    ('{"userId":NaN}', "USER_PERSONALIZATION", "malformed", '{"userId":NaN}'),
    ("userId,1", "USER_PERSONALIZATION", "malformed", "userId,1"),
    (b'{"userId":"1","x":"\xff"}', "USER_PERSONALIZATION", "can't decode byte 0xff", ...),
    ('{"userId":"\\ud800"}', "USER_PERSONALIZATION", "", '{"userId":"\\ud800"}'),
    ('{"userId":' + "[" * 100_000, "USER_PERSONALIZATION", "", ('{"userId":' + "[" * 990)),
    ("[" * 100_000, "USER_PERSONALIZATION", "", "[" * 1000),
]


def test_invalid_lines_are_answered_with_an_error() -> None:
    """The answer repeats the line, as JSON or the beginning of a text."""
    for line, kind, error, echo in REJECTED:
        one = asked(line, kind)
        assert isinstance(one, Rejected), line
        assert error in one.error, line
        answer = json.loads(refusal(*one))
        assert answer == {"input": answer["input"], "output": None, "error": one.error}
        assert echo in (..., answer["input"]), line


def test_lines_are_bounded() -> None:
    """A longer one is rejected unread, and its beginning repeated."""
    short = b'{"userId":"1","x":"' + b"x" * (MAX_LINE_BYTES - 21) + b'"}'

    assert isinstance(asked(short), InferenceRequest)
    assert asked(b"[" + short[1:] + b" ]").error == "the line has more than 1048576 bytes"
    assert len(json.loads(asked(b"[" + short[1:] + b" ]").input)) == 1000


def test_inference_answers() -> None:
    """Amazon's form: the line itself, items, scores if the recipe has some, no error."""
    one = asked('{"userId" : "4638", "x": 1.50, "y": 123456789012345678901234567890}')

    assert inference_answer(one, ["i1", "é"], [0.5, 1e-7]).decode() == (
        '{"input":{"userId" : "4638", "x": 1.50, "y": 123456789012345678901234567890},'
        '"output":{"recommendedItems":["i1","é"],"scores":[0.5,1e-7]},"error":null}'
    )
    assert json.loads(inference_answer(one, []))["output"] == {"recommendedItems": []}


def test_segment_lines_and_answers() -> None:
    """By items, and by attributes, whose answers have a form of their own."""
    item = segment('{"itemId": "105"}')
    assert item == SegmentRequest(b'{"itemId": "105"}', "105", "", None, {})
    assert json.loads(segment_answer(item, ["106", "49"])) == {
        "input": {"itemId": "105"},
        "output": {"recommendedUsers": ["106", "49"]},
    }
    query = 'ITEMS.genres = "Comedy" AND ITEMS.genres = "Action"'
    attributes = segment(json.dumps({"itemAttributes": query}), "attributes")
    assert attributes.item_attributes == query
    assert attributes.query.matching(["i"], [{"GENRES": "Action|Comedy"}]).tolist() == [True]
    assert json.loads(segment_answer(attributes, ["25"])) == {
        "itemAttributes": query,
        "output": {"recommendedUsers": ["25"]},
    }


def test_invalid_segment_lines_are_answered_with_an_error() -> None:
    """A missing member, or the position of an error in a query."""
    assert segment('{"itemAttributes": "Items.a = 1"}').error == "itemId is missing"
    assert segment('{"itemId": "1"}', "attributes").error == "itemAttributes is missing"
    found = segment('{"itemAttributes": "Items.a > 1"}', "attributes")
    assert found.error == "itemAttributes, line 1, column 9: found '>', expected ="
    assert json.loads(found.input) == {"itemAttributes": "Items.a > 1"}
    assert "must have 1 to 2500" in segment('{"itemAttributes": ""}', "attributes").error


@pytest.mark.parametrize("by", MAX_SEGMENTS)
def test_segment_jobs_are_bounded(by: SegmentBy) -> None:
    """By the number of lines, valid or not."""
    lines = [b'{"itemId": "1"}\n', b"\n"] * MAX_SEGMENTS[by]

    assert len(list(segment_requests(lines, by))) == MAX_SEGMENTS[by]
    with pytest.raises(InvalidInput, match=f"may ask {MAX_SEGMENTS[by]} questions"):
        list(segment_requests([*lines, b"x"], by))


def test_output_keys_keep_the_folders_of_the_input() -> None:
    """Whether the input is a prefix or a file."""
    for key, below, to, expected in [
        ("in/a.json", "in/", "out/", "out/a.json.out"),
        ("in/x/a.json", "in/", "out", "out/x/a.json.out"),
        ("in/a.json", "in/a.json", "", "a.json.out"),
        ("in/users-1.json", "in/users", "out/", "out/users-1.json.out"),
        ("a.json", "", "out/", "out/a.json.out"),
    ]:
        assert output_key(key, below, to) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
MEMBERS = ["userId", "itemId", "itemList", "itemAttributes", "filterValues"]


@given(st.dictionaries(st.sampled_from(MEMBERS), JSON) | JSON)
def test_any_json_is_a_request_or_rejected(value: Any) -> None:
    """The answer is JSON that repeats it exactly."""
    line = json.dumps(value).encode()
    for request in (asked(line, "PERSONALIZED_RANKING"), segment(line.decode())):
        if isinstance(request, InferenceRequest):
            answer = inference_answer(request, ["i"], [1.0])
        elif isinstance(request, SegmentRequest):
            answer = segment_answer(request, ["u"])
        else:
            answer = refusal(*request)
        assert json.loads(answer)["input"] in (value, line.decode())


@given(st.binary(max_size=60))
def test_any_bytes_are_a_request_or_rejected(line: bytes) -> None:
    """Nothing else is raised, and every answer is JSON."""
    for request in inference_requests([line], "USER_PERSONALIZATION"):
        answer = refusal(*request) if isinstance(request, Rejected) else b"{}"
        assert isinstance(json.loads(answer), dict)

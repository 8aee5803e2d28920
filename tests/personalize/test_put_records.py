"""Records that are put are checked by the schema of their dataset, as those of files are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from models.errors import InvalidInput
from models.metadata_records import Properties
from tests.personalize.control_fixtures import Control

COLUMNS = {
    "ITEMS": ("ITEM_ID", "NUM_RATINGS:long", "PRICE:null|float", "GENRE:categorical",
              "IS_NEW:null|boolean"),
    "USERS": ("USER_ID", "NUM_RATINGS:long", "GENRE:categorical"),
    "ACTIONS": ("ACTION_ID", "NUM_RATINGS:long", "GENRE:categorical"),
}  # fmt: skip
NOUNS = {"ITEMS": "item", "USERS": "user", "ACTIONS": "action"}


async def put(control: Control, kind: str, properties: dict[str, Any]) -> Properties:
    """The properties that a record is sent to Kafka with; of a group `g`."""
    sent: list[Properties | None] = []

    async def keep(_: str, group: str, records: Sequence[tuple[str, Properties | None]]) -> str:
        assert group == ("actions.g" if kind == "ACTIONS" else "g")
        sent.extend(properties for _, properties in records)
        return "token"

    publisher = replace(control.context.services.publisher, put=keep)  # type: ignore[type-var]
    object.__setattr__(control.context.services, "publisher", publisher)
    arn = await control.dataset(await control.group(), *COLUMNS[kind], kind=kind)
    noun = NOUNS[kind]
    await control(
        f"Put{noun.title()}s",
        datasetArn=arn,
        **{f"{noun}s": [{f"{noun}Id": "x", "properties": json.dumps(properties)}]},
    )
    (found,) = sent
    assert found is not None
    return found


@pytest.mark.parametrize("kind", COLUMNS)
async def test_records_take_the_types_of_their_columns(control: Control, kind: str) -> None:
    """Numbers may be texts, as in Amazon's examples; names may be spelled as in JSON or Avro."""
    properties = {"numRatings": "12", "GENRE": "a|b"}

    assert await put(control, kind, properties) == {"numRatings": 12, "GENRE": "a|b"}


async def test_all_types_of_columns(control: Control) -> None:
    """Numbers, truth values and null, where the column takes it."""
    given = {"num_ratings": 12, "price": 9.5, "genre": None, "isNew": True}

    assert await put(control, "ITEMS", given) == given


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"numRatings": 1, "colour": "red"}, "'colour' is no column of the dataset; it has NUM"),
        ({"numRatings": "many"}, "NUM_RATINGS: not of type long: 'many'"),
        ({"numRatings": 1.5}, "NUM_RATINGS: not of type long: '1.5'"),
        ({"numRatings": None}, "NUM_RATINGS: empty"),
        ({"genre": "a"}, "NUM_RATINGS is missing, and may not be null"),
        ({"numRatings": 1, "genre": 5}, "GENRE: not of type null or string: '5'"),
        ({"numRatings": 1, "isNew": "perhaps"}, "IS_NEW: not of type"),
        ({"numRatings": 1, "genre": ["a"]}, "GENRE: not of type"),
    ],
)
async def test_other_records_are_refused(
    control: Control, properties: dict[str, Any], reason: str
) -> None:
    """The error names the column and the record; nothing is sent."""
    with pytest.raises(InvalidInput, match=reason) as caught:
        await put(control, "ITEMS", properties)
    assert str(caught.value).endswith("at items.1.member.properties")

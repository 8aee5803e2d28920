"""Metadata in answers: the columns of items that a request asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from api.personalize.context import PersonalizeContext
from api.personalize.inference_request import InferenceTarget
from models.errors import InvalidInput
from models.state.metadata import item_properties

MAX_COLUMNS = 10
MAX_RESULTS = 50
"""Items that an answer with metadata may have."""

MAX_VALUE_CHARACTERS = 20_000


def columns_of(
    target: InferenceTarget, asked: Mapping[str, Sequence[str]], k: int
) -> Sequence[str]:
    """The columns of items that a request for `k` of them asks for.

    Raises
    ------
    InvalidInput
        The campaign gives none, there are too many, or they are not of items.
    """
    columns = [name for names in asked.values() for name in names]
    if not columns:
        return ()
    if not target.config.get("enableMetadataWithRecommendations"):
        raise InvalidInput(
            "metadataColumns need a campaign or recommender with enableMetadataWithRecommendations"
        )
    if {name.upper() for name in asked} != {"ITEMS"}:
        raise InvalidInput("metadataColumns are those of ITEMS")
    if len(columns) > MAX_COLUMNS:
        raise InvalidInput(f"metadataColumns are at most {MAX_COLUMNS}, not {len(columns)}")
    if k > MAX_RESULTS:
        raise InvalidInput(f"with metadataColumns there are at most {MAX_RESULTS} items, not {k}")
    return columns


async def values_of(
    context: PersonalizeContext, group: str, columns: Sequence[str], names: Sequence[str]
) -> list[dict[str, str]]:
    """What each of the items has in these columns, as text; what is not known is left out."""
    wanted = {_folded(column): column for column in columns}
    known = await item_properties(context.tenants.store(group), names)
    return [
        {
            wanted[_folded(name)]: _text(value)
            for name, value in (properties or {}).items()
            if value is not None and _folded(name) in wanted
        }
        for properties in known
    ]


def _folded(column: str) -> str:
    """The name as it is compared: schemas say NUM_RATINGS of what PutItems calls numRatings.

    >>> _folded("NUM_RATINGS") == _folded("numRatings")
    True
    """
    return column.replace("_", "").lower()


def _text(value: float | str) -> str:
    """The value as text; truth values are written as JSON writes them."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text[:MAX_VALUE_CHARACTERS]

"""The objectives, and the stored measures by which a ranker serves each; loads no ranker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import msgspec

Objective = Literal["interactions", "purchases"]
"""Events that count as success: any interaction, or a purchase."""

OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


class Measures(msgspec.Struct):
    """Running means of HR@20, MRR@20 and NDCG@20 of all compared rankers, on the same examples.

    Attributes
    ----------
    n
        Examples in all.
    means
        By ranker and measure.
    """

    n: int = 0
    means: dict[str, dict[str, float]] = {}


class Champion(NamedTuple):
    """The name of the ranker that serves an objective, and the measures that it was chosen by."""

    name: str
    measures: Measures


def stored_champions(stored: Mapping[str, bytes]) -> dict[Objective, Champion]:
    """Champion of each objective, of the fields that `ObjectiveLearner.fields` stores.

    >>> stored_champions({})["purchases"].name
    'blend'
    """
    return {
        name: Champion(
            stored.get(f"{name}:serving", b"blend").decode(),
            msgspec.json.decode(stored.get(f"{name}:scoreboard", b"{}"), type=Measures),
        )
        for name in OBJECTIVES
    }

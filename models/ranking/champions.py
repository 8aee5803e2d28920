"""The objectives, and the stored measures by which a ranker serves each; loads no ranker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import msgspec

Objective = Literal["interactions", "purchases"]
"""Events that count as success: any interaction, or a purchase."""

BuiltInChoice = Literal["built-in", "blend", "ranker", "ranker-alone"]

BUILT_IN_CHOICES: tuple[BuiltInChoice, ...] = get_args(BuiltInChoice)

RankerChoice = str
"""A ranker to order candidates by, whichever serves: the built-in champion, one of the built-in
rankers, or a challenger by its name."""

OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


def challenger_name(named: str) -> str:
    """The name of a challenger that the settings name.

    >>> challenger_name("river.naive_bayes:GaussianNB")
    'GaussianNB'
    """
    return named.partition(":")[2].rpartition(".")[2]


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
    is_challenger: bool = False


class _Challengers(Measures):
    """The members of stored `ChallengerMeasures` that say who serves."""

    leads: dict[str, object] = {}
    serving: str = ""


def challengers_field(objective: Objective) -> str:
    """Field of the ranker's state with the measures of an objective's challengers."""
    return f"{objective}:challengers"


def serving_challenger(stored: bytes | None) -> str:
    """Name of the challenger that serves, of what is stored in `challengers_field`; or empty.

    >>> serving_challenger(None)
    ''
    """
    return msgspec.json.decode(stored or b"{}", type=_Challengers).serving


def stored_champions(stored: Mapping[str, bytes]) -> dict[Objective, Champion]:
    """Champion of each objective, of the fields that `ObjectiveLearner.fields` stores.

    A challenger if one serves; the measures are those of the built-in rankers, on all examples, and
    of challengers on theirs (`challenger_fields`).

    >>> stored_champions({})["purchases"].name
    'blend'
    """
    return {name: _champion(name, stored) for name in OBJECTIVES}


def _champion(objective: Objective, stored: Mapping[str, bytes]) -> Champion:
    measures = msgspec.json.decode(stored.get(f"{objective}:scoreboard", b"{}"), type=Measures)
    found = msgspec.json.decode(stored.get(challengers_field(objective), b"{}"), type=_Challengers)
    measures.means |= {name: means for name, means in found.means.items() if name in found.leads}
    built_in = stored.get(f"{objective}:serving", b"blend").decode()
    return Champion(found.serving or built_in, measures, bool(found.serving))

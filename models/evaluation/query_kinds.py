"""Results of some queries apart: repeated and new targets, cold ones, and those of a young shop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from models.evaluation.intervals import compared_means
from models.evaluation.protocol import TOP, ModelResult, QueryTraits, measures

COLD_EVENTS = 5
"""An item with fewer events is cold."""

CURVE = (100, 300, 1000, 3000)
"""Events after which a learning curve is read."""

QueryKinds = Mapping[str, Callable[[QueryTraits], bool]]

REPEATED_AND_NEW: QueryKinds = {
    "repeated": lambda asked: not asked.is_new,
    "new": lambda asked: asked.is_new,
}
COLD_AND_WARM: QueryKinds = {
    "cold": lambda asked: asked.item_events < COLD_EVENTS,
    "warm": lambda asked: asked.item_events >= COLD_EVENTS,
}


def curve_kinds(points: Sequence[int] = CURVE) -> QueryKinds:
    """Kinds of queries of a learning curve: those among the first so many events."""

    def among_first(n: int) -> Callable[[QueryTraits], bool]:
        return lambda asked: asked.event < n

    return {f"first {n}": among_first(n) for n in points}


def by_kind(results: Mapping[str, ModelResult], kinds: QueryKinds) -> dict[str, dict[str, Any]]:
    """HR@20 and MRR@20 of each model on each kind of queries; kinds without queries are left out.

    Returns
    -------
    dict
        By kind and model: `queries`, and by measure its mean, half the width of its 95 % interval,
        and the difference from the first model, with the interval of the paired difference.
    """
    found: dict[str, dict[str, Any]] = {}
    first = next(iter(results.values()))
    reference = measures(first.ranks)
    for kind, is_of_kind in kinds.items():
        chosen = np.array([is_of_kind(asked) for asked in first.asked], np.bool_)
        if not chosen.any():
            continue
        found[kind] = {}
        for name, result in results.items():
            measured = measures(result.ranks)
            values: dict[str, Any] = {"queries": int(chosen.sum())}
            for measure in (f"hr_{TOP}", f"mrr_{TOP}"):
                values[measure] = compared_means(
                    measured[measure][chosen], reference[measure][chosen]
                )
            found[kind][name] = values
    return found


def kinds_as_text(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The measures of `by_kind` as a table of text, HR@20 and MRR@20 of each kind."""
    models = next(iter(found.values()), {})
    head = "".join(f"{kind:>26}" for kind in found)
    numbers = "".join(f"{rows[next(iter(rows))]['queries']:>18} queries" for rows in found.values())
    lines = [f"{'HR@20, MRR@20 ±':<22}{head}", f"{'':<22}{numbers}"]
    for name in models:
        cells = (rows[name] for rows in found.values())
        lines.append(
            f"{name:<22}"
            + "".join(
                f"{cell[f'hr_{TOP}']['mean']:>10.4f}{cell[f'mrr_{TOP}']['mean']:>8.4f}"
                f"{cell[f'mrr_{TOP}']['ci95']:>8.4f}"
                for cell in cells
            )
        )
    return "\n".join(lines)

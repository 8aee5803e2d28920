"""Challengers that a process learns: those that serve, and those that questions chose lately."""

from __future__ import annotations

from collections.abc import Mapping

from models.ranking.challengers import ReadyChallengers, ServingChallengers
from models.ranking.champions import Objective

CHOSEN_S = 600.0
"""A challenger that a question chose goes on learning in this process for so long."""


class WantedChallengers:
    """The challengers that one group's questions need; `serving` None: the process learns none."""

    def __init__(self, serving: ServingChallengers | None) -> None:
        self._serving = serving
        self._chosen: dict[tuple[Objective, str], float] = {}  # when a question last chose each

    def choose(self, objective: Objective, name: str, now_s: float) -> None:
        """Note that a question chose a challenger: it begins to learn if it is not ready."""
        self._chosen[objective, name] = now_s

    def ready(self, leading: Mapping[Objective, str], now_s: float) -> ReadyChallengers:
        """Those that lead, or were chosen in the last `CHOSEN_S`, and are ready in this process."""
        if self._serving is None:
            return {}
        self._chosen = {one: at_s for one, at_s in self._chosen.items() if now_s - at_s <= CHOSEN_S}
        wanted = {name: {one} for name, one in leading.items() if one}
        for objective, name in self._chosen:
            wanted.setdefault(objective, set()).add(name)
        return self._serving.ready({one: frozenset(names) for one, names in wanted.items()})

"""The registry of kinds of faults, and their order in a drill."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from ops.drill.site import Site

Act = Callable[[Site, random.Random], str]

OVERLAP_SHARE = 0.3
"""Share of the faults during which another one begins, where they touch different parts."""


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes
    ----------
    act
        Causes the fault, and ends it; gives what was seen of it, and raises if nothing was.
    parts
        Affected parts: `worker`, `api`, `redis`, `kafka`, `network` or `letters` (dead ones);
        concurrent faults share none.
    needs
        What the site must permit, some of `site.POWERS`.
    is_slow
        Takes ten seconds or more; drawn less often.
    """

    name: str
    act: Act
    parts: frozenset[str]
    needs: frozenset[str]
    is_slow: bool

    @property
    def summary(self) -> str:
        """Description in one line."""
        return (self.act.__doc__ or "").splitlines()[0]


FAULTS: dict[str, Fault] = {}
"""Every kind, by name."""


def fault(*parts: str, needs: Collection[str] = (), is_slow: bool = False) -> Callable[[Act], Act]:
    """Register a function as a kind of fault."""

    def register(act: Act) -> Act:
        name = act.__name__.replace("_", "-")
        FAULTS[name] = Fault(name, act, frozenset(parts), frozenset(needs), is_slow)
        return act

    return register


def possible(powers: Collection[str]) -> list[str]:
    """Names of the kinds that a site with these powers permits."""
    return [name for name, kind in FAULTS.items() if kind.needs <= set(powers)]


def schedule(chance: random.Random, names: list[str]) -> Iterator[list[Fault]]:
    """Faults without end, one or two at a time: every kind once, then again in another order."""
    left: list[Fault] = []
    is_first = True
    while True:
        if not left:
            kinds = [FAULTS[name] for name in names]
            left = [kind for kind in kinds if is_first or not kind.is_slow or chance.random() < 0.5]
            chance.shuffle(left)
            is_first = False
            if not left:
                continue
        together = [left.pop()]
        if chance.random() < OVERLAP_SHARE:
            others = [one for one in left if not one.parts & together[0].parts]
            if others:
                left.remove(others[-1])
                together.append(others[-1])
        yield together

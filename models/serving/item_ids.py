"""Ids of items by their number, held in the process: a number means the same item forever."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from models.arrays import NO_ITEMS, Indexes
from models.state.store import Store


class ItemIds:
    """The ids of a group's items that were asked for, `most` of them, which never age."""

    def __init__(self, store: Store, *, most: int) -> None:
        self._store = store
        self._most = most
        self._names: list[str | None] = []
        self._n = 0

    async def of(self, items: Sequence[int], others: Indexes = NO_ITEMS) -> list[str | None]:
        """Item ids; None for a number that no item has.

        Where some must be read, those of `others` are read along: they will be wanted next.
        """
        found = self._held(items)
        if None in found:
            wanted = (*items, *others.tolist())
            known = zip(wanted, self._held(wanted), strict=True)
            missing = [item for item, name in known if name is None]
            read = dict(zip(missing, await self._store.item_ids(missing), strict=True))
            found = [name or read[item] for item, name in zip(items, found, strict=True)]
            self._keep(read)
        return found

    def known(self, items: Collection[int]) -> list[str]:
        """The ids of those that are held; reads nothing."""
        return [name for name in self._held(items) if name is not None]

    def _held(self, items: Collection[int]) -> list[str | None]:
        names = self._names
        try:
            return [names[item] for item in items]
        except IndexError:
            return [names[item] if item < len(names) else None for item in items]

    def _keep(self, names: Mapping[int, str | None]) -> None:
        # Numbers are given in turn: a list has no more gaps than there are names unasked for.
        found = {item: name for item, name in names.items() if name is not None}
        if self._n + len(found) > self._most:
            self._names, self._n = [], 0
        held = self._names
        held.extend([None] * (max(found, default=0) + 1 - len(held)))
        for item, name in found.items():
            self._n += held[item] is None
            held[item] = name

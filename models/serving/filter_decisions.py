"""Kept decisions of filters that look at items' properties only.

Whether such a filter allows an item changes only with the item's record, so it is decided once for
all requests until a record of the group is applied: a filter of two conditions then costs a request
a few microseconds instead of a hundred.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from models.filters.filter import Filter, ReadPart

MAX_FILTERS = 64
"""Filters, with their values, whose decisions a process keeps of one group."""

MAX_DECISIONS = 20_000
"""Decisions kept of one filter: some 2 MB."""

ITEM_PARTS: frozenset[ReadPart] = frozenset(("properties",))
"""Parts of the state that a filter may read for its decisions to be kept."""


class FilterDecisions:
    """Decisions by filter and item, of one group."""

    def __init__(self) -> None:
        self._version: object = None
        self._by_filter: OrderedDict[tuple[str, ...], dict[str, bool]] = OrderedDict()

    def of(self, found: Filter, values: Mapping[str, str], version: object) -> dict[str, bool]:
        """The decisions of a filter that reads `ITEM_PARTS` only, to look up and to add to.

        Parameters
        ----------
        version
            State of the group's records; another one than before drops all decisions.
        """
        if version != self._version:
            self._by_filter.clear()
            self._version = version
        key = (found.text, *(part for pair in sorted(values.items()) for part in pair))
        decisions = self._by_filter.get(key)
        if decisions is None or len(decisions) >= MAX_DECISIONS:
            decisions = self._by_filter[key] = {}
        self._by_filter.move_to_end(key)
        if len(self._by_filter) > MAX_FILTERS:
            self._by_filter.popitem(last=False)
        return decisions

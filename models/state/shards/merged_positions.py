"""Positions of a partition in several shards as one of the group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from models.state.messages import StoredPosition


def merged_position(
    of_shards: Sequence[Mapping[str, StoredPosition] | None],
    at_home: Mapping[str, StoredPosition] | None,
    field: str,
) -> StoredPosition:
    """The position of a partition where it is least far, of the shards that answer."""
    found = [marks[field] for marks in of_shards if marks is not None]
    is_whole = len(found) == len(of_shards)
    if all(one.watermark < 0 for one in found):
        if at_home is None or not found:
            return StoredPosition(-1, None, -1, is_whole=False)
        return at_home[field]._replace(is_whole=is_whole)
    least = min(found, key=lambda one: one.watermark)
    newest = max(one.watermark for one in found)
    return StoredPosition(least.watermark, least.witness, newest, is_whole)

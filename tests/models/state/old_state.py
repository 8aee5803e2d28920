"""State that an earlier release wrote: twelve events of one session, in format 1.

Format 1 has 24 bytes a pair of items instead of 8. The file is a list of keys with type and value,
bytes as base64, of the group `shop`; it was read out of a Redis that the release before
format 2 had written to.
"""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import redis

FORMAT_1 = Path(__file__).parent / "state_of_format_1.json.gz"


def write_old_state(client: redis.Redis, group: str) -> list[str]:
    """Write the state of format 1 as that of a group; gives the names of its keys."""
    names = []
    for stored, kind, value in json.loads(gzip.decompress(FORMAT_1.read_bytes())):
        name = stored.replace("{shop}", f"{{{group}}}", 1)
        names.append(name)
        if kind == "string":
            client.set(name, _bytes(value))
        elif kind == "hash":
            client.hset(name, mapping={_bytes(one): _bytes(value[one]) for one in value})
        else:
            client.zadd(name, {_bytes(one): score for one, score in value})
    return names


def _bytes(text: str) -> Any:
    return base64.b64decode(text)

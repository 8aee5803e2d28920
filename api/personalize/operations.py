"""Every operation that is implemented, by its name in the API."""

from __future__ import annotations

from collections.abc import Mapping

from api.personalize.wire import Operation

OPERATIONS: Mapping[str, Operation] = {}

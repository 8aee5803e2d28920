"""Clients of the shared stack, as AWS makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.personalize.calls import client
from tests.stack import Stack


@pytest.fixture
def url(running: Stack) -> str:
    """Address of the API for AWS clients."""
    return f"{running.url}/personalize"


@pytest.fixture
def clients(url: str) -> Callable[[str], Any]:
    """Makes a client of a service: `personalize`, `personalize-runtime` or `personalize-events`."""
    return lambda service: client(service, url)

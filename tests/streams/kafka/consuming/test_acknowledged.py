"""Messages lost with a killed broker, counted by the acknowledgements of its producers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.errors import Unavailable
from models.settings import Settings
from models.state.clients.client import connect
from models.state.store import Store
from models.tokens import Published, Receipt
from ops.embedded_servers import start_redis
from streams.kafka.consuming.acknowledged import AcknowledgedOffsets, begin, lost


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Settings of a killed embedded broker, and of a Redis that runs."""
    server = start_redis(tmp_path)
    yield Settings(kafka="127.0.0.1:1", redis=server.url, data_dir=tmp_path)
    server.stop()


def receipt(*places: tuple[int, int]) -> Receipt:
    """A receipt for messages at these partitions and offsets."""
    return Receipt(tuple(Published("t", *place, "clicks", "cluster/topic") for place in places))


async def test_acknowledged_messages_beyond_the_watermark_are_lost(settings: Settings) -> None:
    """Up to the furthest acknowledgement of all producers in each partition; none twice."""
    begin(settings)
    senders = [AcknowledgedOffsets.of(settings) for _ in range(2)]
    for n, sender in enumerate(senders):
        assert sender is not None
        sender.note(receipt((0, 3 + 2 * n), (1, 9)))
        sender.note(receipt((0, 2)))
        sender.close()
        sender.note(receipt((0, 99)))
    store = Store(connect(settings.redis), settings)
    await store.raise_watermark("cluster/topic/0", 1)
    await store.raise_watermark("cluster/topic/1", 9)
    await store.redis.aclose()

    assert await lost(settings) == {"cluster/topic/0": 4}
    begin(settings)
    assert await lost(settings) == {}


async def test_other_brokers_acknowledgements_are_not_recorded(settings: Settings) -> None:
    """Without a record there is no count."""
    with pytest.raises(Unavailable):
        await lost(settings)
    begin(settings)
    other = settings.model_copy(update={"kafka": "kafka:9092"})
    assert AcknowledgedOffsets.of(other) is None

"""What a broker that is gone took along: counted by what its senders were told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.errors import Unavailable
from models.settings import Settings
from models.state.client import connect
from models.state.store import Store
from models.tokens import Published, Receipt
from ops.embedded_servers import start_redis
from streams.kafka.acknowledged import AcknowledgedOffsets, begin, lost


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Of an embedded broker that is gone, and of a Redis that is not."""
    server = start_redis(tmp_path)
    yield Settings(kafka="127.0.0.1:1", redis=server.url, data_dir=tmp_path)
    server.stop()


def receipt(*places: tuple[int, int]) -> Receipt:
    """That messages at these partitions and offsets were acknowledged."""
    return Receipt(tuple(Published("t", *place, "clicks", "cluster/topic") for place in places))


async def test_what_is_not_in_effect_is_counted(settings: Settings) -> None:
    """The furthest of all senders in each partition, beyond the watermark; none twice."""
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


async def test_nobody_knows_of_other_brokers(settings: Settings) -> None:
    """Who sends elsewhere notes nothing, and without a note there is no number."""
    with pytest.raises(Unavailable):
        await lost(settings)
    begin(settings)
    other = settings.model_copy(update={"kafka": "kafka:9092"})
    assert AcknowledgedOffsets.of(other) is None

"""The forwarder's ledger on a real Redis server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from models.errors import Unavailable
from models.state.clients.client import RedisClient, connect
from models.state.operations.forwarding_ledger import (
    ForwardCounts,
    TrackerChange,
    WaitingEvents,
    forward_counts,
    forward_positions,
    save_forward,
    tracker_counts,
    tracker_waiting,
)
from ops.embedded_servers import Server, start_redis
from tests.servers import own_port

CALLS = {"shop": {"calls": 3, "retries": 2, "throttles": 1}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Redis server that this module's tests share."""
    started = start_redis(tmp_path_factory.mktemp("redis"))
    yield started
    started.stop()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[RedisClient]:
    """A client of the empty server."""
    async with connect(server.url) as connected:
        await connected.flushall()
        yield connected


async def test_an_empty_ledger_is_all_zeros(client: RedisClient) -> None:
    """Reads before the first save give zeros and no positions."""
    assert await forward_counts(client, "shop") == ForwardCounts()
    assert await forward_positions(client, "shop") == {}


async def test_positions_and_counts_are_saved_together(client: RedisClient) -> None:
    """Reads equal the save, and a further save adds."""
    notes: dict[str, dict[str, str | float]] = {
        "shop": {"last_error": "ThrottlingException: slow", "last_error_at": 1795381719.25}
    }
    for offset in (10, 2**53 - 1):
        moves = {
            "c/t/0": TrackerChange(
                offset, {"shop": {"forwarded": 7, "refused": 1}, "": {"skipped": 2}}
            ),
            "c/t/1": TrackerChange(4, {"shop": {"forwarded": 3}, "a/b": {"withheld": 6}}),
        }
        await save_forward(client, "shop", moves=moves, calls=CALLS, notes=notes)
    assert await forward_positions(client, "shop") == {"c/t/0": 2**53 - 1, "c/t/1": 4}
    assert await forward_counts(client, "shop") == ForwardCounts(
        forwarded=17, refused=2, withheld=6, skipped=4, calls=6, retries=4, throttles=2,
        last_error="ThrottlingException: slow", last_error_at=1795381719.25,
    )  # fmt: skip
    assert await tracker_counts(client, "shop") == {
        "a/b": ForwardCounts(withheld=6),
        "shop": ForwardCounts(
            forwarded=17, refused=2, calls=6, retries=4, throttles=2,
            last_error="ThrottlingException: slow", last_error_at=1795381719.25,
        ),
    }  # fmt: skip
    assert await forward_counts(client, "other") == ForwardCounts()
    assert await tracker_counts(client, "other") == {}


async def test_a_repeated_save_counts_no_event_twice(client: RedisClient) -> None:
    """The same save again, after its answer was lost, is harmless."""
    moves = {"c/t/0": TrackerChange(5, {"shop": {"forwarded": 5}})}
    for _ in range(2):
        await save_forward(client, "shop", moves=moves)
    assert (await forward_counts(client, "shop")).forwarded == 5


async def test_a_position_never_moves_back(client: RedisClient) -> None:
    """A forwarder that has lost its partition cannot undo the work of the new one."""
    for offset in (9, 4):
        moves = {"c/t/0": TrackerChange(offset, {"shop": {"forwarded": 1}})}
        await save_forward(client, "shop", moves=moves)
    assert await forward_positions(client, "shop") == {"c/t/0": 9}
    assert (await forward_counts(client, "shop")).forwarded == 1


async def test_waiting_events_are_summed_over_partitions(client: RedisClient) -> None:
    """A later save of a partition replaces its earlier one."""
    first = {
        "c/t/0": {"shop": WaitingEvents(3, 50.5), "b": WaitingEvents(1, 9.0)},
        "c/t/1": {"shop": WaitingEvents(2, 40.0)},
    }
    await save_forward(client, "shop", waiting=first)
    assert await tracker_waiting(client, "shop") == {
        "shop": WaitingEvents(5, 40.0), "b": WaitingEvents(1, 9.0),
    }  # fmt: skip
    await save_forward(
        client, "shop", waiting={"c/t/1": {}, "c/t/0": {"shop": WaitingEvents(1, 51.0)}}
    )
    assert await tracker_waiting(client, "shop") == {"shop": WaitingEvents(1, 51.0)}
    await save_forward(client, "shop", waiting={"c/t/0": {}})
    assert await tracker_waiting(client, "shop") == {}


async def test_errors_are_saved_without_a_position(client: RedisClient) -> None:
    """Calls and the last error are saved while no position moves; the text is bounded."""
    notes = {"shop": {"last_error": "x" * 5000}}
    await save_forward(client, "shop", calls=CALLS, notes=notes)
    counts = await forward_counts(client, "shop")
    assert await forward_positions(client, "shop") == {}
    assert (counts.calls, counts.retries, counts.last_error) == (3, 2, "x" * 300)


async def test_the_keys_live_on_one_node_of_a_cluster(client: RedisClient) -> None:
    """Every key names the group in braces."""
    held = {"c/t/0": {"shop": WaitingEvents(1, 2.0)}}
    await save_forward(
        client, "shop", moves={"c/t/0": TrackerChange(1, {})}, calls=CALLS, waiting=held
    )
    names = ["counts", "positions", "trackers", "waiting"]
    assert sorted(await client.keys()) == [f"{{shop}}:forward:{name}".encode() for name in names]


async def test_an_absent_redis_is_unavailable() -> None:
    """Every function raises `Unavailable`."""
    async with connect(f"redis://127.0.0.1:{own_port()}") as away:
        with pytest.raises(Unavailable):
            await forward_counts(away, "shop")
        with pytest.raises(Unavailable):
            await forward_positions(away, "shop")
        with pytest.raises(Unavailable):
            await tracker_counts(away, "shop")
        with pytest.raises(Unavailable):
            await tracker_waiting(away, "shop")
        with pytest.raises(Unavailable):
            await save_forward(away, "shop", calls=CALLS)

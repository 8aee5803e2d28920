"""The forwarder's ledger on a real Redis server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from models.errors import Unavailable
from models.state.client import RedisClient, connect
from models.state.forwarding_ledger import (
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


async def test_a_group_without_a_forwarder_has_done_nothing(client: RedisClient) -> None:
    """Reading before the first save gives zeros and no positions."""
    assert await forward_counts(client, "shop") == ForwardCounts()
    assert await forward_positions(client, "shop") == {}


async def test_positions_and_counts_are_kept_together(client: RedisClient) -> None:
    """What was saved is what is read, and a further save adds."""
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
    """After an answer that got lost on its way, the same save again is harmless."""
    moves = {"c/t/0": TrackerChange(5, {"shop": {"forwarded": 5}})}
    for _ in range(2):
        await save_forward(client, "shop", moves=moves)
    assert (await forward_counts(client, "shop")).forwarded == 5


async def test_a_position_never_moves_back(client: RedisClient) -> None:
    """A worker that has lost its partition cannot undo what the new one did."""
    for offset in (9, 4):
        moves = {"c/t/0": TrackerChange(offset, {"shop": {"forwarded": 1}})}
        await save_forward(client, "shop", moves=moves)
    assert await forward_positions(client, "shop") == {"c/t/0": 9}
    assert (await forward_counts(client, "shop")).forwarded == 1


async def test_what_waits_is_summed_over_partitions_and_ends(client: RedisClient) -> None:
    """Each partition says what it holds; a later word of it replaces the earlier."""
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


async def test_an_outage_is_on_record_while_no_position_moves(client: RedisClient) -> None:
    """Calls and the last error are saved without a position, the error bounded."""
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


async def test_a_redis_that_is_away_is_unavailable() -> None:
    """Every call says so with the one error that callers wait on."""
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

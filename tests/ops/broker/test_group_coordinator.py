"""Consumer groups: joining, assignment, sessions that end, and committed offsets."""

from __future__ import annotations

import time
from unittest import mock

import pytest
from kafka.errors import (
    IllegalGenerationError,
    InconsistentGroupProtocolError,
    InvalidGroupIdError,
    InvalidSessionTimeoutError,
    KafkaError,
    MemberIdRequiredError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

from ops.broker.group_coordinator import Committed, GroupCoordinator, Joined

pytestmark = pytest.mark.unit

SESSION_MS = 10_000


class Members:
    """A group "g" and the clients in it."""

    def __init__(self) -> None:
        self.groups = GroupCoordinator()

    def named(self) -> str:
        """The identifier of a new client."""
        with pytest.raises(MemberIdRequiredError) as required:
            self.join("")
        return str(required.value.args[0])

    def join(self, member_id: str, **given: object):  # type: ignore[no-untyped-def]  # noqa: ANN201
        """The future of a join."""
        wanted = {
            "session_ms": SESSION_MS,
            "rebalance_ms": SESSION_MS,
            "protocol_type": "consumer",
            "protocols": {"range": member_id.encode()},
            "requires_id": True,
        }
        return self.groups.join("g", member_id, **{**wanted, **given})  # type: ignore[arg-type]

    def synced(self, joined: Joined) -> bytes:
        """What a member is assigned after the leader's call, which assigns each its identifier."""
        parts = {member_id: member_id.encode() for member_id, _ in joined.members}
        future = self.groups.sync("g", joined.member_id, joined.generation, parts)
        assert future.done()
        return future.result()


async def test_all_members_join_and_the_leader_assigns() -> None:
    """The second waits for the first to join again; the leader alone learns who is there."""
    members = Members()
    first, second = members.named(), members.named()
    alone = members.join(first).result()
    assert members.synced(alone) == first.encode()
    late = members.join(second)
    assert not late.done()
    with pytest.raises(RebalanceInProgressError):
        members.groups.heartbeat("g", first, alone.generation)
    again = members.join(first).result()
    assert again.generation == late.result().generation == alone.generation + 1
    assert again.leader == late.result().leader == first
    assert dict(again.members) == {first: first.encode(), second: second.encode()}
    assert late.result().members == []
    waiting = members.groups.sync("g", second, again.generation, {})
    assert not waiting.done()
    assert members.synced(again) == first.encode()
    assert waiting.result() == second.encode()
    members.groups.heartbeat("g", second, again.generation)
    with pytest.raises(IllegalGenerationError):
        members.groups.heartbeat("g", second, alone.generation)


async def test_a_member_that_leaves_has_the_others_join_again() -> None:
    """Its leadership passes on."""
    members = Members()
    first, second = members.named(), members.named()
    members.join(first)
    late = members.join(second)
    members.join(first)
    assert late.done()
    members.groups.leave("g", first)
    with pytest.raises(RebalanceInProgressError):
        members.groups.heartbeat("g", second, late.result().generation)
    joined = members.join(second).result()
    assert joined.leader == second
    assert [name for name, _ in joined.members] == [second]
    with pytest.raises(UnknownMemberIdError):
        members.groups.leave("g", first)


async def test_a_member_that_falls_silent_is_removed() -> None:
    """When its session ends; one that has not joined again by the deadline, too."""
    members = Members()
    first, second = members.named(), members.named()
    begun_s = time.monotonic()
    members.join(first)
    late = members.join(second)
    with mock.patch.object(time, "monotonic", return_value=begun_s + SESSION_MS / 1000 + 1):
        members.groups.expire()
        assert [name for name, _ in late.result().members] == [second]
        with pytest.raises(UnknownMemberIdError):
            members.groups.heartbeat("g", first, 1)
    with mock.patch.object(time, "monotonic", return_value=begun_s + 3 * SESSION_MS / 1000):
        members.groups.expire()
        with pytest.raises(UnknownMemberIdError):
            members.groups.heartbeat("g", second, late.result().generation)
        with pytest.raises(UnknownMemberIdError):
            members.join(second)


async def test_a_leader_that_falls_silent_does_not_hold_those_who_wait() -> None:
    """They hear that the group joins again."""
    members = Members()
    first, second = members.named(), members.named()
    members.join(first)
    late = members.join(second)
    members.join(first)
    waiting = members.groups.sync("g", second, late.result().generation, {})
    begun_s = time.monotonic()
    with mock.patch.object(time, "monotonic", return_value=begun_s + SESSION_MS / 1000 + 1):
        members.groups.expire()
    assert isinstance(waiting.exception(), RebalanceInProgressError)
    assert members.join(second).result().leader == second


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"session_ms": 1}, InvalidSessionTimeoutError),
        ({"protocols": {}}, InconsistentGroupProtocolError),
        ({"protocols": {"other": b""}}, InconsistentGroupProtocolError),
        ({"protocol_type": "connect"}, InconsistentGroupProtocolError),
    ],
)
async def test_a_join_that_cannot_be_is_refused(
    given: dict[str, object], error: type[KafkaError]
) -> None:
    """And changes nothing for those in the group."""
    members = Members()
    joined = members.join(members.named()).result()
    members.synced(joined)
    with pytest.raises(error):
        members.join("", **given)
    members.groups.heartbeat("g", joined.member_id, joined.generation)
    with pytest.raises(InvalidGroupIdError):
        members.groups.join(
            "", "", session_ms=SESSION_MS, rebalance_ms=1, protocol_type="consumer",
            protocols={"range": b""}, requires_id=True,
        )  # fmt: skip


async def test_offsets_are_committed_by_members_of_this_generation() -> None:
    """By anyone while nobody is in the group; they are gone with their topic."""
    groups, one = GroupCoordinator(), {("t", 0): Committed(5, -1, "")}
    groups.commit("g", "", -1, one)
    assert groups.committed("g") == one
    assert groups.committed("other") == {}
    members = Members()
    members.groups = groups
    joined = members.join(members.named()).result()
    with pytest.raises(RebalanceInProgressError):
        groups.commit("g", joined.member_id, joined.generation, one)
    members.synced(joined)
    with pytest.raises(UnknownMemberIdError):
        groups.commit("g", "", -1, one)
    with pytest.raises(IllegalGenerationError):
        groups.commit("g", joined.member_id, joined.generation + 1, one)
    more = {("t", 0): Committed(6, -1, ""), ("u", 1): Committed(7, -1, "")}
    groups.commit("g", joined.member_id, joined.generation, more)
    groups.forget_topic("t")
    assert groups.committed("g") == {("u", 1): Committed(7, -1, "")}

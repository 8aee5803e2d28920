"""Consumer groups: who is in them, which generation they are in, and their committed offsets.

Apache Kafka's classic protocol: members join, the leader assigns partitions, all learn their part
by SyncGroup, and heartbeats tell who still lives. Answers that wait for others are futures.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass, field
from typing import NamedTuple

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

MIN_SESSION_MS, MAX_SESSION_MS = 1000, 1_800_000
"""Bounds of a member's session, within which it must send a heartbeat."""

MAX_GROUPS, MAX_MEMBERS = 1000, 1000


class Joined(NamedTuple):
    """Result of a join, once all members have joined; `members` are for the leader only."""

    generation: int
    protocol: str
    leader: str
    member_id: str
    members: list[tuple[str, bytes]]


class Committed(NamedTuple):
    """A committed offset, as it was sent."""

    offset: int
    leader_epoch: int
    metadata: str


@dataclass
class _Member:
    """A member; its futures are answered when the group has joined or the leader assigned."""

    member_id: str
    session_s: float
    rebalance_s: float
    protocols: dict[str, bytes]
    deadline_s: float = 0.0
    joining: asyncio.Future[Joined] | None = None
    syncing: asyncio.Future[bytes] | None = None
    assignment: bytes = b""

    def touch(self) -> None:
        self.deadline_s = time.monotonic() + self.session_s


@dataclass
class _Group:
    protocol_type: str = ""
    members: dict[str, _Member] = field(default_factory=dict)
    promised: dict[str, float] = field(default_factory=dict)
    offsets: dict[tuple[str, int], Committed] = field(default_factory=dict)
    generation: int = 0
    leader: str = ""
    protocol: str = ""
    state: str = "empty"
    rebalance_deadline_s: float = 0.0


class GroupCoordinator:
    """All consumer groups of a broker; `expire` is to be called several times a second."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}

    def join(
        self,
        group_id: str,
        member_id: str,
        *,
        session_ms: int,
        rebalance_ms: int,
        protocol_type: str,
        protocols: dict[str, bytes],
        requires_id: bool,
    ) -> asyncio.Future[Joined]:
        """The future of a member's place in the next generation.

        Raises
        ------
        MemberIdRequiredError
            With the member's identifier as its argument, with which it is to ask again.
        KafkaError
            Another one that Apache Kafka gives in such a case.
        """
        if not MIN_SESSION_MS <= session_ms <= MAX_SESSION_MS:
            raise InvalidSessionTimeoutError
        group = self._group(group_id)
        if not protocols or (group.members and protocol_type != group.protocol_type):
            raise InconsistentGroupProtocolError
        others = [one for one in group.members.values() if one.member_id != member_id]
        if others and not any(all(name in one.protocols for one in others) for name in protocols):
            raise InconsistentGroupProtocolError
        if not member_id:
            if len(group.members) + len(group.promised) >= MAX_MEMBERS:
                raise InvalidGroupIdError
            member_id = f"member-{uuid.uuid4()}"
            if requires_id:
                group.promised[member_id] = time.monotonic() + session_ms / 1000
                raise MemberIdRequiredError(member_id)
        elif member_id not in group.members and group.promised.pop(member_id, None) is None:
            raise UnknownMemberIdError
        member = group.members.get(member_id)
        if member is None:
            member = _Member(member_id, session_ms / 1000, rebalance_ms / 1000, protocols)
            group.members[member_id] = member
        member.session_s, member.rebalance_s = session_ms / 1000, rebalance_ms / 1000
        member.protocols = protocols
        member.touch()
        group.protocol_type = protocol_type
        self._begin_rebalance(group)
        _fail(member.joining, RebalanceInProgressError())
        member.joining = asyncio.get_running_loop().create_future()
        future = member.joining
        self._complete_join(group)
        return future

    def sync(
        self, group_id: str, member_id: str, generation: int, assignments: dict[str, bytes]
    ) -> asyncio.Future[bytes]:
        """The future of a member's assignment; the leader's call gives everyone's."""
        group, member = self._member(group_id, member_id, generation)
        if group.state == "joining":
            raise RebalanceInProgressError
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if group.state == "assigning":
            _fail(member.syncing, RebalanceInProgressError())
            member.syncing = future
            if member_id == group.leader:
                group.state = "stable"
                for one in group.members.values():
                    one.assignment = assignments.get(one.member_id, b"")
                    one.touch()
                    if one.syncing is not None and not one.syncing.done():
                        one.syncing.set_result(one.assignment)
                    one.syncing = None
        else:
            future.set_result(member.assignment)
        return future

    def heartbeat(self, group_id: str, member_id: str, generation: int) -> None:
        """Note that a member lives; raises a KafkaError as Apache Kafka answers."""
        group, _ = self._member(group_id, member_id, generation)
        if group.state == "joining":
            raise RebalanceInProgressError

    def leave(self, group_id: str, member_id: str) -> None:
        """Remove a member; raises UnknownMemberIdError."""
        group = self._groups.get(group_id)
        if group is None or member_id not in group.members:
            raise UnknownMemberIdError
        self._remove(group, member_id)

    def commit(
        self,
        group_id: str,
        member_id: str,
        generation: int,
        offsets: dict[tuple[str, int], Committed],
    ) -> None:
        """Commit offsets of a member; with generation -1 of anyone, to a group without members."""
        if generation >= 0:
            group, _ = self._member(group_id, member_id, generation)
            if group.state == "assigning":
                raise RebalanceInProgressError
        else:
            group = self._group(group_id)
            if group.members:
                raise UnknownMemberIdError
        group.offsets.update(offsets)

    def committed(self, group_id: str) -> dict[tuple[str, int], Committed]:
        """All committed offsets of a group."""
        group = self._groups.get(group_id)
        return {} if group is None else group.offsets

    def forget_topic(self, name: str) -> None:
        """Remove what was committed for a topic that is no more."""
        for group in self._groups.values():
            for key in [key for key in group.offsets if key[0] == name]:
                del group.offsets[key]

    def expire(self) -> None:
        """Remove members whose session has ended, and those that do not join in time."""
        now_s = time.monotonic()
        for group in self._groups.values():
            for member_id in [one for one, until_s in group.promised.items() if until_s < now_s]:
                del group.promised[member_id]
            for member in list(group.members.values()):
                is_waiting = member.joining is not None or member.syncing is not None
                is_late = group.state == "joining" and now_s > group.rebalance_deadline_s
                if (not is_waiting and now_s > member.deadline_s) or (
                    is_late and member.joining is None
                ):
                    self._remove(group, member.member_id)
            if group.state == "joining" and now_s > group.rebalance_deadline_s:
                self._complete_join(group)

    def _group(self, group_id: str) -> _Group:
        group = self._groups.get(group_id)
        if group is None:
            if not group_id or len(self._groups) >= MAX_GROUPS:
                raise InvalidGroupIdError
            group = self._groups[group_id] = _Group()
        return group

    def _member(self, group_id: str, member_id: str, generation: int) -> tuple[_Group, _Member]:
        group = self._groups.get(group_id)
        member = None if group is None else group.members.get(member_id)
        if group is None or member is None:
            raise UnknownMemberIdError
        if generation != group.generation:
            raise IllegalGenerationError
        member.touch()
        return group, member

    def _begin_rebalance(self, group: _Group) -> None:
        if group.state == "joining":
            return
        group.state = "joining"
        longest_s = max(member.rebalance_s for member in group.members.values())
        group.rebalance_deadline_s = time.monotonic() + longest_s
        for member in group.members.values():
            if member.syncing is not None:
                _fail(member.syncing, RebalanceInProgressError())
                member.syncing = None
                member.touch()

    def _complete_join(self, group: _Group) -> None:
        """Begin the next generation if everyone has joined."""
        members = group.members
        if group.state != "joining" or any(one.joining is None for one in members.values()):
            return
        group.generation += 1
        if group.leader not in members:
            group.leader = next(iter(members))
        group.protocol = next(
            name
            for name in members[group.leader].protocols
            if all(name in one.protocols for one in members.values())
        )
        group.state = "assigning"
        everyone = [(one.member_id, one.protocols[group.protocol]) for one in members.values()]
        for one in members.values():
            told = everyone if one.member_id == group.leader else []
            joined = Joined(group.generation, group.protocol, group.leader, one.member_id, told)
            if one.joining is not None and not one.joining.done():
                one.joining.set_result(joined)
            one.joining = None
            one.touch()

    def _remove(self, group: _Group, member_id: str) -> None:
        member = group.members.pop(member_id)
        _fail(member.joining, UnknownMemberIdError())
        _fail(member.syncing, UnknownMemberIdError())
        if not group.members:
            group.state = "empty"
            return
        self._begin_rebalance(group)
        self._complete_join(group)


def _fail(future: asyncio.Future[Joined] | asyncio.Future[bytes] | None, error: KafkaError) -> None:
    if future is not None and not future.done():
        future.set_exception(error)

"""Requests about consumer groups."""

from __future__ import annotations

import asyncio
from typing import Any

from kafka.errors import (
    KafkaError,
    MemberIdRequiredError,
    NoError,
    UnknownTopicOrPartitionError,
)
from kafka.protocol.consumer import (
    HeartbeatResponse,
    JoinGroupResponse,
    LeaveGroupResponse,
    OffsetCommitResponse,
    OffsetFetchResponse,
    SyncGroupResponse,
)

from ops.broker.group_coordinator import Committed, GroupCoordinator
from ops.broker.message_requests import Response, Waits
from ops.broker.topic_catalog import TopicCatalog


class GroupRequests:
    """Answers to requests about consumer groups."""

    def __init__(self, catalog: TopicCatalog, groups: GroupCoordinator) -> None:
        self._catalog, self._groups = catalog, groups

    def join_group(self, request: Any, version: int) -> Response | Waits:  # noqa: ANN401
        """A member's place in the next generation of its group, when all have joined."""
        answered: Waits = asyncio.get_running_loop().create_future()

        def failed(error: KafkaError, member_id: str = request.member_id) -> Response:
            return JoinGroupResponse(
                version=version,
                error_code=error.errno,
                generation_id=-1,
                protocol_type=None,
                protocol_name="" if version < 7 else None,
                leader="",
                member_id=member_id,
                members=[],
            )

        def finish(future: Waits) -> None:
            if answered.done():
                future.exception()
                return
            error = future.exception()
            if isinstance(error, KafkaError):
                answered.set_result(failed(error))
                return
            joined = future.result()
            member = JoinGroupResponse.JoinGroupResponseMember
            answered.set_result(
                JoinGroupResponse(
                    version=version,
                    generation_id=joined.generation,
                    protocol_type=request.protocol_type,
                    protocol_name=joined.protocol,
                    leader=joined.leader,
                    member_id=joined.member_id,
                    members=[
                        member(member_id=name, group_instance_id=None, metadata=metadata)
                        for name, metadata in joined.members
                    ],
                )
            )

        rebalance_ms = request.rebalance_timeout_ms
        try:
            future = self._groups.join(
                request.group_id,
                request.member_id,
                session_ms=request.session_timeout_ms,
                rebalance_ms=rebalance_ms if rebalance_ms > 0 else request.session_timeout_ms,
                protocol_type=request.protocol_type,
                protocols={one.name: bytes(one.metadata) for one in request.protocols},
                requires_id=version >= 4,
            )
        except MemberIdRequiredError as promised:
            return failed(promised, str(promised.args[0]))
        except KafkaError as refused:
            return failed(refused)
        future.add_done_callback(finish)
        return answered

    def sync_group(self, request: Any, version: int) -> Response | Waits:  # noqa: ANN401
        """A member's assignment, when the leader has made it."""
        answered: Waits = asyncio.get_running_loop().create_future()

        def given(error: int, assignment: bytes) -> Response:
            return SyncGroupResponse(
                version=version,
                error_code=error,
                protocol_type=request.protocol_type,
                protocol_name=request.protocol_name,
                assignment=assignment,
            )

        def finish(future: Waits) -> None:
            error = future.exception()
            if answered.done():
                return
            if isinstance(error, KafkaError):
                answered.set_result(given(error.errno, b""))
            else:
                answered.set_result(given(NoError.errno, future.result()))

        try:
            future = self._groups.sync(
                request.group_id,
                request.member_id,
                request.generation_id,
                {one.member_id: bytes(one.assignment) for one in request.assignments},
            )
        except KafkaError as refused:
            return given(refused.errno, b"")
        future.add_done_callback(finish)
        return answered

    def heartbeat(self, request: Any, version: int) -> Response:  # noqa: ANN401
        """Keep a member's session alive; the error code tells it to join again."""
        error = NoError.errno
        try:
            self._groups.heartbeat(request.group_id, request.member_id, request.generation_id)
        except KafkaError as refused:
            error = refused.errno
        return HeartbeatResponse(version=version, error_code=error)

    def leave_group(self, request: Any, version: int) -> Response:  # noqa: ANN401
        """Remove members from their group."""
        of = LeaveGroupResponse.MemberResponse
        names = [request.member_id] if version < 3 else [one.member_id for one in request.members]
        errors = []
        for name in names:
            try:
                self._groups.leave(request.group_id, name)
                errors.append(NoError.errno)
            except KafkaError as refused:
                errors.append(refused.errno)
        return LeaveGroupResponse(
            version=version,
            error_code=NoError.errno if version >= 3 else errors[0],
            members=[
                of(member_id=name, group_instance_id=None, error_code=error)
                for name, error in zip(names, errors, strict=True)
            ],
        )

    def offset_commit(self, request: Any, version: int) -> Response:  # noqa: ANN401
        """Commit offsets of a group."""
        of = OffsetCommitResponse.OffsetCommitResponseTopic
        offsets, unknown = {}, set()
        for topic in request.topics:
            for part in topic.partitions:
                key = (topic.name, part.partition_index)
                try:
                    self._catalog.partition(*key)
                except KafkaError:
                    unknown.add(key)
                    continue
                offsets[key] = Committed(
                    part.committed_offset,
                    part.committed_leader_epoch,
                    part.committed_metadata or "",
                )
        error = NoError.errno
        try:
            self._groups.commit(
                request.group_id,
                request.member_id,
                request.generation_id_or_member_epoch,
                offsets,
            )
        except KafkaError as refused:
            error = refused.errno
        topics = [
            of(
                name=topic.name,
                partitions=[
                    of.OffsetCommitResponsePartition(
                        partition_index=part.partition_index,
                        error_code=UnknownTopicOrPartitionError.errno
                        if (topic.name, part.partition_index) in unknown
                        else error,
                    )
                    for part in topic.partitions
                ],
            )
            for topic in request.topics
        ]
        return OffsetCommitResponse(version=version, topics=topics)

    def offset_fetch(self, request: Any, version: int) -> Response:  # noqa: ANN401
        """Committed offsets of a group, of some partitions or of all; -1 where there is none."""
        of = OffsetFetchResponse.OffsetFetchResponseTopic
        committed = self._groups.committed(request.group_id)
        if request.topics is None:
            wanted: dict[str, list[int]] = {}
            for name, partition in committed:
                wanted.setdefault(name, []).append(partition)
        else:
            wanted = {one.name: list(one.partition_indexes) for one in request.topics}
        topics = []
        for name, partitions in wanted.items():
            parts = []
            for partition in partitions:
                found = committed.get((name, partition), Committed(-1, -1, ""))
                parts.append(
                    of.OffsetFetchResponsePartition(
                        partition_index=partition,
                        committed_offset=found.offset,
                        committed_leader_epoch=found.leader_epoch,
                        metadata=found.metadata,
                        error_code=NoError.errno,
                    )
                )
            topics.append(of(name=name, partitions=parts))
        return OffsetFetchResponse(version=version, topics=topics)

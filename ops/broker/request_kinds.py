"""The kinds and versions of requests that are answered, and who answers each.

Messages are encoded and decoded by kafka-python's classes, which come from Apache Kafka's schemas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from kafka.errors import NoError, UnsupportedVersionError
from kafka.protocol.admin import CreateTopicsRequest, DeleteTopicsRequest
from kafka.protocol.consumer import (
    FetchRequest,
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    ListOffsetsRequest,
    OffsetCommitRequest,
    OffsetFetchRequest,
    SyncGroupRequest,
)
from kafka.protocol.metadata import (
    ApiVersionsRequest,
    ApiVersionsResponse,
    FindCoordinatorRequest,
    MetadataRequest,
)
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest

from ops.broker.group_coordinator import GroupCoordinator
from ops.broker.group_requests import GroupRequests
from ops.broker.message_requests import MessageRequests, Response, Waits
from ops.broker.topic_catalog import TopicCatalog
from ops.broker.topic_requests import TopicRequests


class Api(NamedTuple):
    """A kind of request: its class and the versions that are answered."""

    request: Any
    oldest: int
    newest: int


# Fetch sessions and topic identifiers in fetches begin after version 6: there is no use for them.
VERSIONS = {
    api.request.API_KEY: api
    for api in (
        Api(ProduceRequest, 3, 8),
        Api(FetchRequest, 4, 6),
        Api(ListOffsetsRequest, 1, 7),
        Api(MetadataRequest, 1, 12),
        Api(OffsetCommitRequest, 2, 8),
        Api(OffsetFetchRequest, 1, 7),
        Api(FindCoordinatorRequest, 0, 3),
        Api(JoinGroupRequest, 0, 7),
        Api(HeartbeatRequest, 0, 4),
        Api(LeaveGroupRequest, 0, 4),
        Api(SyncGroupRequest, 0, 5),
        Api(ApiVersionsRequest, 0, 3),
        Api(CreateTopicsRequest, 2, 7),
        Api(DeleteTopicsRequest, 1, 5),
        Api(InitProducerIdRequest, 0, 4),
    )
}


class RequestKinds:
    """The state of a broker, and its answer to each kind of request.

    Parameters
    ----------
    catalog, groups
        Its topics and consumer groups.
    cluster_id
        Identifier of this run.
    messages
        Answers what produces and fetches, of clients on all listeners.
    host, port
        Where clients reach it.
    """

    def __init__(
        self,
        catalog: TopicCatalog,
        groups: GroupCoordinator,
        *,
        cluster_id: str,
        messages: MessageRequests,
        host: str,
        port: int,
    ) -> None:
        self._groups = groups
        self._messages = messages
        self._topics = topics = TopicRequests(catalog, cluster_id=cluster_id, host=host, port=port)
        members = GroupRequests(catalog, groups)
        self._by_key: dict[int, Callable[[Any, int], Response | Waits | None]] = {
            ProduceRequest.API_KEY: messages.produce,
            FetchRequest.API_KEY: messages.fetch,
            ListOffsetsRequest.API_KEY: messages.list_offsets,
            MetadataRequest.API_KEY: topics.metadata,
            OffsetCommitRequest.API_KEY: members.offset_commit,
            OffsetFetchRequest.API_KEY: members.offset_fetch,
            FindCoordinatorRequest.API_KEY: topics.find_coordinator,
            JoinGroupRequest.API_KEY: members.join_group,
            HeartbeatRequest.API_KEY: members.heartbeat,
            LeaveGroupRequest.API_KEY: members.leave_group,
            SyncGroupRequest.API_KEY: members.sync_group,
            ApiVersionsRequest.API_KEY: self._api_versions,
            CreateTopicsRequest.API_KEY: topics.create_topics,
            DeleteTopicsRequest.API_KEY: self._delete_topics,
            InitProducerIdRequest.API_KEY: topics.init_producer_id,
        }

    def answer(self, key: int, version: int, request: Any) -> Response | Waits | None:  # noqa: ANN401
        """The answer, its future, or None if none is wanted."""
        return self._by_key[key](request, version)

    def unsupported_versions(self) -> Response:
        """The answer to a question for versions in a version that is not known here."""
        return self._versions(0, UnsupportedVersionError.errno)

    def _api_versions(self, _: Any, version: int) -> Response:  # noqa: ANN401
        return self._versions(version, NoError.errno)

    def _delete_topics(self, request: Any, version: int) -> Response:  # noqa: ANN401
        answer = self._topics.delete_topics(request, version)
        for name in request.topic_names:
            self._groups.forget_topic(name)
        # Fetches that wait for their messages hear of it.
        self._messages.end_waits()
        return answer

    def _versions(self, version: int, error: int) -> Response:
        one = ApiVersionsResponse.ApiVersion
        keys = [
            one(api_key=key, min_version=api.oldest, max_version=api.newest)
            for key, api in VERSIONS.items()
        ]
        return ApiVersionsResponse(version=version, error_code=error, api_keys=keys)

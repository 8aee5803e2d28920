"""Requests about the broker and its topics."""

from __future__ import annotations

from typing import Any

from kafka.errors import (
    InvalidConfigurationError,
    KafkaError,
    NoError,
    TransactionalIdAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from kafka.protocol.admin import CreateTopicsResponse, DeleteTopicsResponse
from kafka.protocol.metadata import FindCoordinatorResponse, MetadataResponse
from kafka.protocol.producer import InitProducerIdResponse

from ops.broker.message_requests import Response
from ops.broker.topic_catalog import TopicCatalog

NODE = 1
"""Identifier of the one broker."""


class TopicRequests:
    """Answers to requests about the broker and its topics.

    Parameters
    ----------
    catalog
        The topics.
    cluster_id
        Identifier of this run.
    host, port
        Where clients reach the broker.
    """

    def __init__(self, catalog: TopicCatalog, *, cluster_id: str, host: str, port: int) -> None:
        self._catalog = catalog
        self._cluster_id, self._host, self._port = cluster_id, host, port
        self._n_producers = 0

    def metadata(self, request: Any, version: int) -> Response:  # noqa: ANN401
        """Address of the broker, and topics: those asked for, or all. None is made by asking."""
        of = MetadataResponse.MetadataResponseTopic
        if request.topics is None:
            names = list(self._catalog.topics)
        else:
            by_id = {topic.topic_id: name for name, topic in self._catalog.topics.items()}
            names = [
                by_id.get(one.topic_id, "") if one.name is None else one.name
                for one in request.topics
            ]
        topics = []
        for name in names:
            topic = self._catalog.topics.get(name)
            if topic is None:
                error = UnknownTopicOrPartitionError.errno
                topics.append(of(error_code=error, name=name, partitions=[]))
                continue
            partitions = [
                of.MetadataResponsePartition(
                    partition_index=number,
                    leader_id=NODE,
                    leader_epoch=0,
                    replica_nodes=[NODE],
                    isr_nodes=[NODE],
                    offline_replicas=[],
                )
                for number in range(len(topic.partitions))
            ]
            topics.append(of(name=name, topic_id=topic.topic_id, partitions=partitions))
        here = MetadataResponse.MetadataResponseBroker(
            node_id=NODE, host=self._host, port=self._port, rack=None
        )
        return MetadataResponse(
            version=version,
            brokers=[here],
            cluster_id=self._cluster_id,
            controller_id=NODE,
            topics=topics,
        )

    def create_topics(self, request: Any, version: int) -> Response:  # noqa: ANN401
        """Make topics."""
        of = CreateTopicsResponse.CreatableTopicResult
        topics = []
        for one in request.topics:
            configs = {config.name: config.value or "" for config in one.configs}
            n_partitions = len(one.assignments) or one.num_partitions
            try:
                made = self._catalog.create(one.name, n_partitions, one.replication_factor, configs)
                topics.append(
                    of(
                        name=one.name,
                        topic_id=made.topic_id,
                        error_code=NoError.errno,
                        error_message=None,
                        num_partitions=len(made.partitions),
                        replication_factor=1,
                        configs=[],
                    )
                )
                if request.validate_only:
                    self._catalog.delete(one.name)
            except (KafkaError, ValueError) as refused:
                error = refused.errno if isinstance(refused, KafkaError) else None
                code = InvalidConfigurationError.errno if error is None else error
                topics.append(of(name=one.name, error_code=code, error_message=str(refused)))
        return CreateTopicsResponse(version=version, topics=topics)

    def delete_topics(self, request: Any, version: int) -> Response:  # noqa: ANN401
        """Remove topics."""
        of = DeleteTopicsResponse.DeletableTopicResult
        responses = []
        for name in request.topic_names:
            error = NoError.errno
            try:
                self._catalog.delete(name)
            except KafkaError as refused:
                error = refused.errno
            responses.append(of(name=name, error_code=error, error_message=None))
        return DeleteTopicsResponse(version=version, responses=responses)

    def init_producer_id(self, request: Any, version: int) -> Response:  # noqa: ANN401
        """A new idempotent producer; there are no transactions."""
        if request.transactional_id is not None:
            error = TransactionalIdAuthorizationFailedError.errno
            return InitProducerIdResponse(version=version, error_code=error)
        self._n_producers += 1
        return InitProducerIdResponse(
            version=version, producer_id=self._n_producers, producer_epoch=0
        )

    def find_coordinator(self, _: Any, version: int) -> Response:  # noqa: ANN401
        """Address of the broker: it coordinates every group."""
        return FindCoordinatorResponse(
            version=version, error_message=None, node_id=NODE, host=self._host, port=self._port
        )

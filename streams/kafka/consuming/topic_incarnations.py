"""Current incarnations of the topics.

A topic that is deleted and made again has another id, and offsets that begin again. A receipt that
names an offset must name its incarnation. A producer's acknowledgement does not, and its metadata
may be old: only a later question to Kafka tells.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from models.errors import Unavailable
from models.settings import Settings
from models.tokens import TopicKind
from streams.kafka.connections.connection import connect, missing_topics, unavailable

RECHECK_S = 1.0
"""Longest age of the answer while no caller asks."""

PAUSE = 4.0
"""Pause between two questions, in multiples of the last one's duration: a fifth of a core."""

RETRY_S = 0.25
"""Pause after a question that Kafka did not answer."""

TIMEOUT_S = 2.0
"""Longest wait for one answer."""

TopicIncarnations = Mapping[TopicKind, str]


class IncarnationLookup:
    """One thread and one connection that ask Kafka, once for all callers that wait meanwhile.

    Parameters
    ----------
    topics
        Names of the topics, by kind.
    polls
        Ask again after `RECHECK_S` even if no caller does.

    Raises
    ------
    Unavailable
        From the constructor, when Kafka does not answer in time or lacks one of the topics.
    """

    def __init__(
        self, settings: Settings, topics: Mapping[TopicKind, str], *, polls: bool = True
    ) -> None:
        self._settings = settings
        self._topics = dict(topics)
        self._pause_s = RECHECK_S if polls else None
        self._timeout_s = min(TIMEOUT_S, settings.publish_timeout_s)
        self._admin = connect(
            KafkaAdminClient, settings, request_timeout_ms=round(1000 * self._timeout_s)
        )
        self._cluster = ""
        self._known: dict[TopicKind, str] = {}
        self._asked_s = -math.inf
        try:
            self._ask_kafka(self._topics)
        except Unavailable:
            self._admin.close()
            raise
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._wanted: set[TopicKind] = set()
        self._next = _future()
        self._thread = threading.Thread(target=self._run, name="topic-incarnations", daemon=True)
        self._thread.start()

    @property
    def known(self) -> TopicIncarnations:
        """Newest answer: `<cluster id>/<topic id>` by kind."""
        return self._known

    @property
    def asked_s(self) -> float:
        """Time of the question to the newest answer about all topics, on the monotonic clock."""
        return self._asked_s

    def ask(self, kinds: Iterable[TopicKind] | None = None) -> Future[TopicIncarnations]:
        """Future answer to a question that is asked from now on, about these kinds or all.

        Ends with `Unavailable` where Kafka does not answer in time.
        """
        with self._changed:
            self._wanted.update(self._topics if kinds is None else kinds)
            self._changed.notify()
            return self._next

    def close(self) -> None:
        """Disconnect; calls that still wait for an answer end with `Unavailable`."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
        self._thread.join(2 * self._timeout_s)
        self._admin.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            with self._changed:
                self._changed.wait_for(
                    lambda: self._wanted or self._closing.is_set(), timeout=self._pause_s
                )
                if self._closing.is_set():
                    break
                wanted, self._wanted = self._wanted or set(self._topics), set()
                asked, self._next = self._next, _future()
            started_s = time.monotonic()
            try:
                self._ask_kafka(wanted)
            except Unavailable as error:
                asked.set_exception(error)
                self._closing.wait(RETRY_S)
            else:
                asked.set_result(self._known)
                self._closing.wait(PAUSE * (time.monotonic() - started_s))
        self._next.set_exception(unavailable(self._settings, KafkaError("not connected")))

    def _ask_kafka(self, kinds: Iterable[TopicKind]) -> None:
        asked_s = time.monotonic()
        names = {self._topics[kind]: kind for kind in kinds}
        try:
            ids = {
                names[topic["name"]]: topic["topic_id"]
                for topic in self._admin.describe_topics(list(names))
            }
            missing = [name for name, kind in names.items() if ids.get(kind) is None]
            if missing:
                raise missing_topics(self._settings, missing)
            if any(self._known.get(kind) != f"{self._cluster}/{of}" for kind, of in ids.items()):
                self._cluster = self._admin.describe_cluster()["cluster_id"]
        except (KafkaError, OSError) as error:
            raise unavailable(self._settings, error) from error
        # Replaced, not changed: other threads read it without the lock.
        self._known = self._known | {kind: f"{self._cluster}/{of}" for kind, of in ids.items()}
        if len(names) == len(self._topics):
            self._asked_s = asked_s


def _future() -> Future[TopicIncarnations]:
    """A future that no waiting caller can cancel for the others."""
    future: Future[TopicIncarnations] = Future()
    future.set_running_or_notify_cancel()
    return future

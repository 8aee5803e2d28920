"""Kafka loses its tail: acknowledged messages vanish, and new ones take their offsets.

Lost messages that were in effect stay in effect, the others are Kafka's loss; the load sends half
of both again. Each fault ends once Redis has continued from Kafka's log, far enough for no later
crash of Redis to reach back to it, and no older state is restored afterwards.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from kafka import TopicPartition

from ops.drill.faults.fault_registry import fault
from ops.drill.faults.message_faults import send
from ops.drill.lost_tails import Tail, copied, erased_user, put_back, settled_marks
from ops.drill.reads import behind, ends_of, event_ids, event_places, fields_of
from ops.drill.script import Message
from ops.drill.site import AOF, NotSeen, Site

ALL = ("kafka", "redis", "worker", "api", "network")
"""All parts: the effects at the time of the loss must be known, so no other fault runs."""

STILL_S = 3.0
"""Whatever a worker had fetched is in effect by then."""

CAUGHT_UP_S = 120.0
FURTHER_S = 2.5
"""For steps enough that a torn end of Redis' file does not reach back to the loss."""


@fault(*ALL, needs=("redis", "kafka", "apache"), is_slow=True)
def kafka_tail_lost(site: Site, chance: random.Random) -> str:
    """Kafka restarts with an earlier log of some partitions, under running workers."""
    with _loss(site, chance) as loss:
        site.pause(chance, 0.5, 4)
        loss.strike()
        site.kafka.start()
        return loss.seen()


@fault(*ALL, needs=("redis", "kafka", "apache"), is_slow=True)
def kafka_tail_lost_without_workers(site: Site, chance: random.Random) -> str:
    """Kafka restarts with an earlier log of some partitions while no worker runs."""
    with _loss(site, chance) as loss:
        site.pause(chance, 0.5, 3)
        for worker in site.workers:
            worker.down(chance.choice((signal.SIGKILL, signal.SIGTERM)))
        site.pause(chance, 0, 2)
        loss.strike()
        site.kafka.start()
        # New messages at some of the lost offsets, at all of them, or at none.
        site.pause(chance, 0, 6)
        for worker in site.workers:
            worker.up()
        return loss.seen()


@fault(*ALL, needs=("redis", "kafka", "apache"), is_slow=True)
def kafka_tail_lost_redis_older(site: Site, chance: random.Random) -> str:
    """Kafka restarts with an earlier log, and Redis with an older state, at once."""
    with _loss(site, chance) as loss:
        site.pause(chance, 0.5, 3)
        loss.keep_redis()
        site.pause(chance, 0.3, 3)
        loss.strike()
        loss.restore_redis()
        site.kafka.start()
        return loss.seen()


@fault(*ALL, needs=("redis", "kafka", "apache"), is_slow=True)
def kafka_tail_lost_redis_older_later(site: Site, chance: random.Random) -> str:
    """Redis restarts at messages that Kafka has lost and replaced."""
    with _loss(site, chance) as loss:
        site.pause(chance, 0.5, 3)
        loss.keep_redis()
        site.pause(chance, 0.3, 3)
        loss.strike()
        site.kafka.start()
        site.pause(chance, 1, 8)
        loss.restore_redis()
        return loss.seen()


class _Loss:
    """One loss: the copies on disk for it, and the lost messages."""

    def __init__(self, site: Site, chance: random.Random, folder: Path) -> None:
        self._site, self._chance, self._folder = site, chance, folder
        self._data = site.kafka.data
        places = event_places(site.settings)
        self.places: list[TopicPartition] = chance.sample(places, chance.randrange(2, 9))
        self._fields = fields_of(site.settings, self.places)
        self.lost: list[Message] = []
        self.erased: list[str] = []
        self._tails: list[Tail] = []
        self._kept_marks: dict[TopicPartition, int] = {}
        with site.kafka.paused():
            copied(self._data, self.places, folder / "kafka")
        self._ends = ends_of(site.settings, self.places)

    def keep_redis(self) -> None:
        """Keep the state of Redis, and how far it is: no step is under way."""
        with contextlib.ExitStack() as halted:
            for worker in self._site.workers:
                halted.enter_context(worker.paused())
            self._kept_marks = settled_marks(
                self._site.settings, self._fields, for_s=0.5, within_s=30
            )
            self._site.wait_until(self._is_written, within_s=30, what="Redis' file has all steps")
            with self._site.redis.paused():
                shutil.copytree(self._site.redis.data / AOF, self._folder / "redis")

    def _is_written(self) -> bool:
        # While the disk is slow, Redis answers before it writes.
        return bool(self._site.ask_redis("INFO", "persistence")["aof_buffer_length"] == 0)

    def restore_redis(self) -> None:
        """Redis restarts with the copied state, and the effects of that time."""
        self._site.restore(self._folder / "redis")
        for tail in self._tails:
            tail.in_effect = min(tail.in_effect, self._kept_marks[tail.place])

    def strike(self) -> None:
        """Kafka is stopped and its log replaced by the copy; records the lost messages."""
        site = self._site
        self._site.wait_until(
            lambda: ends_of(site.settings, self.places) != self._ends,
            within_s=30,
            what="messages that can be lost",
        )
        if self._chance.random() < 0.5:
            site.kafka.kill()
        else:
            site.kafka.stop()
        marks = settled_marks(site.settings, self._fields, for_s=STILL_S, within_s=60)
        self._tails = put_back(self._data, self.places, self._folder / "kafka")
        for tail in self._tails:
            tail.in_effect = marks[tail.place]
            for record in tail.records:
                if record.position in site.poison:
                    site.poison.remove(record.position)
                    site.lost_poison.add(record.position)
                user = erased_user(record)
                if user is not None:
                    self.erased.append(user)
                self.lost += site.load.sent.lose(event_ids(record))
        site.tails += self._tails

    def seen(self) -> str:
        """Number of lost messages, and of those in effect, in words."""
        n = sum(len(tail.records) for tail in self._tails)
        if not n:
            raise NotSeen("Kafka lost no message")
        kept = sum(len(tail.kept) for tail in self._tails)
        return f"Kafka lost {n} messages, of which {kept} were in effect"


@contextlib.contextmanager
def _loss(site: Site, chance: random.Random) -> Iterator[_Loss]:
    """A loss that begins with all in effect up to now, and ends with that again."""
    folder = site.directory / "tails" / str(time.monotonic_ns())
    places = event_places(site.settings)
    _wait_caught_up(site, places)
    loss = _Loss(site, chance, folder)
    try:
        yield loss
        if chance.random() < 0.5:
            # Also when others have taken the places already.
            _wait_caught_up(site, places)
        send(site, [message for message in loss.lost if chance.random() < 0.5], chance)
        for user in loss.erased:
            site.load.erase(user)
        _wait_caught_up(site, places)
        site.pause(chance, FURTHER_S, 2 * FURTHER_S)
        site.forget_snapshots()
        site.take_snapshot()
    finally:
        for worker in site.workers:
            worker.up()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_caught_up(site: Site, places: list[TopicPartition]) -> None:
    ends = ends_of(site.settings, places)
    site.wait_until(
        lambda: not behind(site.settings, ends),
        within_s=CAUGHT_UP_S,
        what="caught up with what Kafka has",
    )

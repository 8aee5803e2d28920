"""The Faust app: made by a function, never at import.

Topics are read without Faust's acknowledgements: an exception inside an agent would acknowledge the
event that caused it. Offsets are committed from the watermarks, for tools that show lag; no reader
starts at them. `streams.kafka.faust_clients.faust_consumer` has the way of a message to the agents.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import faust
from aiokafka.errors import IllegalStateError, KafkaError
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from models.settings import Settings
from streams.kafka.connections.connection import servers
from streams.kafka.connections.unpacking import bound_unpacking
from streams.kafka.consuming.assignment import Partition
from streams.kafka.consuming.message_batches import in_batches
from streams.kafka.faust_clients.faust_consumer import LoadPositions, PositionedConsumer
from streams.kafka.faust_clients.faust_credentials import faust_credentials
from streams.kafka.faust_clients.fetching import start_when_reachable

LOG = logging.getLogger(__name__)


class _Producer(driver.Producer):  # type: ignore[misc]
    """Faust's producer, which waits at its start until a broker answers."""

    async def on_start(self) -> None:
        await start_when_reachable(self, super().on_start)


class _Recovery(Recovery):  # type: ignore[misc]
    """Faust's recovery after a rebalance, without a limit of time.

    Faust would read on at committed offsets after `broker_request_timeout`: nothing would take
    effect any more, in a process that looks well.
    """

    async def _wait(self, coro: Any, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109
        """Wait without Faust's limit; a stop and a rebalance still end it."""
        await super()._wait(coro)


class _Tables(TableManager):  # type: ignore[misc]
    """Faust's manager of tables, of which there are none, with `_Recovery`."""

    _recovery: Recovery | None

    async def on_start(self) -> None:
        """Begin at once: Faust sleeps for a second first, in which tables may be added."""
        await self._update_channels()
        await self.recovery.start()

    @property
    def recovery(self) -> Recovery:
        if self._recovery is None:
            self._recovery = _Recovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery


class _App(faust.App):  # type: ignore[misc]
    """A Faust app whose consumer and producer are those of this project."""

    load_positions: LoadPositions | None = None

    @staticmethod
    def on_positions() -> None:
        """Hook: called once the assigned partitions have their positions."""

    def _create_directories(self) -> None:
        """Do nothing: Faust would make folders for tables, and there are none."""

    def _new_transport(self) -> Any:
        transport = super()._new_transport()
        transport.Producer = _Producer
        transport.Consumer = (
            type(
                "PositionedConsumer",
                (PositionedConsumer,),
                {"load_positions": staticmethod(self.load_positions)},
            )
            if self.load_positions
            else PositionedConsumer
        )
        return transport


def create_app(name: str, settings: Settings, load_positions: LoadPositions | None) -> faust.App:
    """A Faust app, not started, whose consumer group is `<group>-<name>`.

    Parameters
    ----------
    name
        Name of the app: `worker`, `forward`.
    settings
        `kafka` must name the bootstrap servers.
    load_positions
        First offsets to read after a rebalance; None for Kafka's committed offsets.
    """
    bound_unpacking(settings)
    app = _App(
        f"{settings.group}-{name}",
        broker=[f"kafka://{server}" for server in servers(settings)],
        broker_credentials=faust_credentials(settings),
        store="memory://",
        topic_disable_leader=True,
        topic_allow_declare=False,
        topic_partitions=settings.partitions,
        web_enabled=False,
        value_serializer="raw",
        key_serializer="raw",
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=settings.session_timeout_s,
        broker_rebalance_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 6,
        broker_request_timeout=max(30.0, settings.session_timeout_s * 2),
        stream_wait_empty=False,
        TableManager=_Tables,
    )
    app.load_positions = load_positions
    return app


def add_agent(
    app: faust.App,
    topics: Sequence[str],
    handle: Callable[[list[Any]], Awaitable[None]],
    *,
    name: str,
    limit: int,
    wait_s: float = 0.0,
) -> None:
    """Add an agent that hands batches of events of these topics to `handle`, in order.

    Messages that were fetched before the last seek in their partition are left out. An error of
    `handle` stops the whole app: Faust would restart the agent behind the batch that failed.
    """

    async def consume(stream: Any) -> None:
        try:
            async for batch in in_batches(stream, limit, wait_s):
                await handle([e for e in batch if app.consumer.is_current(e.message)])
        except Exception as error:  # noqa: BLE001  after any error, nothing may be skipped
            await app.crash(error)

    topic = app.topic(
        *topics,
        key_type=bytes,
        value_type=bytes,
        value_serializer="raw",
        key_serializer="raw",
        acks=False,
    )
    app.agent(topic, name=name)(consume)


async def commit(app: faust.App, offsets: Mapping[Partition, int]) -> None:
    """Commit the store's positions (next offsets to read), for tools that show lag."""
    try:
        assigned = app.consumer.assignment()
        known = {TP(*tp): offset for tp, offset in offsets.items() if TP(*tp) in assigned}
        if known:
            await app.consumer._commit(known)  # noqa: SLF001  Faust's public commit counts acks
    except (IllegalStateError, KafkaError) as error:
        # A rebalance may take partitions away at any moment; no reader starts at these offsets.
        LOG.debug("offsets were not committed: %r", error)


def run(app: faust.App) -> None:
    """Run the app until SIGINT or SIGTERM; returns when it has stopped.

    Raises
    ------
    SystemExit
        It has ended by an error.
    """
    # The process has configured its log: Faust would change the format.
    worker = faust.Worker(app, override_logging=False, redirect_stdouts=False, quiet=True)
    worker.spinner = None  # it writes escape codes, even to a log file
    try:
        worker.execute_from_commandline()
    except SystemExit as ended:
        if ended.code:
            raise

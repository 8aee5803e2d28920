"""A message's span ends with what became of it: its effect, a dead letter, another read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from models.settings import Settings
from models.spans import Traces
from models.state.clients.client import connect
from models.state.tenants import Tenants
from streams.agents.step_spans import MAX_HEADERS, StepSpans
from tests.streams.agents.agent_fixtures import EventWorker

RECORDED = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def exported() -> InMemorySpanExporter:
    """Where spans go."""
    return InMemorySpanExporter()


@pytest.fixture
async def worker(redis_url: str, exported: InMemorySpanExporter) -> AsyncIterator[EventWorker]:
    """A worker of the event agent that traces, with two partitions, on an empty store."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exported))
    tenants = Tenants(connect(redis_url), Settings(examples_per_s=0, cache_s=0))
    await tenants.redis.flushdb()
    one = EventWorker(tenants)
    one.agent._spans = StepSpans(Traces(provider), "shop-worker")
    await one.assign(one.first, one.second)
    yield one
    await tenants.redis.aclose()


async def read(worker: EventWorker, traced: set[int]) -> None:
    """Apply what lies ahead of both partitions; messages at these offsets are traced."""
    await worker.agent.apply(
        one._replace(traceparent=RECORDED if one.offset in traced else b"")
        for one in worker.kafka.read(worker.first, worker.second)
    )


def messages(exported: InMemorySpanExporter) -> list[ReadableSpan]:
    """Spans of messages, by offset."""
    spans = [one for one in exported.get_finished_spans() if one.name.startswith("process")]
    return sorted(spans, key=lambda one: attributes(one)["messaging.kafka.offset"])


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """Attributes of a span."""
    return dict(span.attributes or {})


async def test_a_dead_letter_and_an_effect(
    worker: EventWorker, exported: InMemorySpanExporter
) -> None:
    """Each traced message of a step has its span; the others have none."""
    worker.send(worker.first, "a", b"no message", "b", "c")
    await read(worker, {1, 2})

    dead, applied = messages(exported)
    assert not dead.status.is_ok
    assert attributes(dead)["error.type"] == "invalid"
    assert applied.status.is_ok
    assert attributes(applied)["recommender.in_effect"] is True
    [step] = [one for one in exported.get_finished_spans() if one.name == "apply step"]
    assert len(step.links) == 2
    assert attributes(step) == {"messaging.batch.message_count": 4}
    assert worker.agent._spans is not None
    assert worker.agent._spans._open == {}


async def test_a_rebalance_in_mid_step(worker: EventWorker, exported: InMemorySpanExporter) -> None:
    """The message takes effect in another assignment, so its span says that it has not here."""
    writer: Any = worker.agent._writer
    write = writer.write

    async def write_and_move(parts: Any) -> Any:
        await worker.assign(worker.second)
        return await write(parts)

    writer.write = write_and_move
    worker.send(worker.first, "a")
    await read(worker, {0})

    [span] = messages(exported)
    assert attributes(span)["recommender.in_effect"] is False


async def test_messages_without_a_trace_make_no_span(
    worker: EventWorker, exported: InMemorySpanExporter
) -> None:
    """A step without a traced message has none either."""
    worker.send(worker.first, "a")
    await read(worker, set())

    assert exported.get_finished_spans() == ()
    assert (await worker.in_effect())[0] == 1


@pytest.mark.parametrize(
    ("headers", "parent"),
    [
        (None, b""),
        ([], b""),
        ([("other", b"1"), ("traceparent", RECORDED)], RECORDED),
        ([("traceparent", RECORDED[:-1] + b"0")], b""),
        ([("traceparent", b"\xff\xfe")], b""),
        ([("traceparent", None)], b""),
        ([("traceparent", b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01")], b""),
        ([("traceparent", RECORDED * 10_000)], b""),
        ([("other", b"1")] * MAX_HEADERS + [("traceparent", RECORDED)], b""),
    ],
)
def test_the_parent_of_a_message(headers: Any, parent: bytes) -> None:
    """Only a valid, recorded one; anything else may stand there."""
    assert StepSpans(Traces(TracerProvider()), "").parent_of(headers) == parent

"""One trace leads from an HTTP request through Kafka to the effect; without a receiver, none."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.otlp_receiver import OtlpReceiver, otlp_receiver
from tests.stack import Stack

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
ENDED = {0, -signal.SIGTERM}


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    """A receiver of traces."""
    with otlp_receiver() as started:
        yield started


def test_one_trace_from_request_to_effect(
    stack: Callable[..., Stack], receiver: OtlpReceiver
) -> None:
    """A recorded caller's trace goes on; another share of requests is not recorded at all."""
    one = stack(traces_endpoint=receiver.endpoint, traces_share=0.0)
    worker, api = one.start("worker"), one.start("api")
    one.wait_ready()  # requests and events that are not recorded
    prefix = one.settings.topic_prefix

    status, answer = one.ask(
        "POST",
        "/events",
        {
            "sessionId": "s-secret",
            "userId": "ada-secret",
            "eventList": [
                {"eventType": kind, "itemId": "tent-secret", "sentAt": time.time()}
                for kind in ("click", "purchase")
            ],
        },
        headers={"traceparent": f"00-{TRACE}-{CALLER}-01"},
    )
    assert status == 202
    headers = {"traceparent": f"00-{'1' * 32}-{CALLER}-01"}
    one.ask("GET", f"/recommend?user_id=ada-secret&after={answer['after']}", headers=headers)
    headers = {"traceparent": f"00-{'2' * 32}-{CALLER}-01"}
    one.ask("GET", "/users/ada-secret/export", headers=headers)
    headers = {"traceparent": f"00-{'3' * 32}-{CALLER}-00"}
    one.ask("GET", "/recommend?user_id=ada-secret", headers=headers)
    one.ask("GET", "/recommend?user_id=ada-secret", headers={"traceparent": "00-odd"})
    # What waits is sent at the end.
    for process in (api, worker):
        process.terminate()
        assert process.wait(30) in ENDED

    [request] = receiver.named("POST /events")
    assert (request.trace, request.parent, request.kind) == (TRACE, CALLER, "SERVER")
    assert request.service == "recommender-api"
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/events",
        "http.response.status_code": 202,
        "url.scheme": "http",
    }
    steps = receiver.named("apply step")
    for topic in (f"{prefix}events.clicks", f"{prefix}events.purchases"):
        [sent] = receiver.named(f"send {topic}")
        [processed] = receiver.named(f"process {topic}")
        assert (sent.trace, sent.parent, sent.kind) == (TRACE, request.id, "PRODUCER")
        assert (processed.trace, processed.parent, processed.kind) == (TRACE, sent.id, "CONSUMER")
        assert processed.service == "recommender-worker"
        assert processed.attributes["recommender.in_effect"] is True
        assert (
            processed.attributes["messaging.consumer.group.name"] == f"{one.settings.group}-worker"
        )
        for span, operation in ((sent, "send"), (processed, "process")):
            assert span.attributes["messaging.system"] == "kafka"
            assert span.attributes["messaging.operation.type"] == operation
            assert span.attributes["messaging.destination.name"] == topic
        place = ("messaging.destination.partition.id", "messaging.kafka.offset")
        assert [sent.attributes[key] for key in place] == [
            processed.attributes[key] for key in place
        ]
    assert {link for step in steps for link in step.links} == {TRACE}
    assert {step.trace for step in steps}.isdisjoint({TRACE})
    [answered] = receiver.named("GET /recommend")
    assert (answered.trace, answered.kind) == ("1" * 32, "SERVER")
    [exported] = receiver.named("GET /users/{user_id}/export")
    assert exported.trace == "2" * 32
    assert not any(span.is_error for span in receiver.spans)
    assert "secret" not in str(receiver.spans)
    assert {span.trace for span in receiver.spans} - {step.trace for step in steps} == {
        TRACE,
        "1" * 32,
        "2" * 32,
    }


def test_a_receiver_that_is_away_stops_nothing(stack: Callable[..., Stack]) -> None:
    """Requests and events go on, and the processes end."""
    one = stack(traces_endpoint="http://127.0.0.1:9/v1/traces", traces_share=1.0)
    processes = [one.start("worker"), one.start("api")]
    one.wait_ready()

    for process in processes:
        process.terminate()
        assert process.wait(30) in ENDED

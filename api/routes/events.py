"""Routes that send events to Kafka: interactions, and the erasure of a user."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, NamedTuple

import msgspec
from fastapi import APIRouter, Path, Request, Response

from api.access.callers import Caller
from api.dependencies import Services
from api.openapi import INVALID_REQUEST_ERROR, SERVER_ERRORS, documented
from api.schemas import Accepted, Erased, encode, encoded_response, json_response
from models import events
from models.action_groups import actions_group
from models.api_keys import Role
from models.audit_entries import pseudonym
from models.errors import Forbidden, InvalidEvent, TooManyWaiting, Unavailable
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.users.erasure_receipts import erasure_receipt
from models.state.users.user_data import user_data_counts

router = APIRouter()


@router.post(
    "/events",
    **documented(
        Accepted,
        "Send 1 to 10 events of one session",
        status=202,
        body=events.PutEvents,
        example={
            "sessionId": "s42",
            "userId": "u7",
            "eventList": [{"eventType": "click", "itemId": "i9", "sentAt": 1795381719.1}],
        },
    ),
)
async def put_events(request: Request) -> Response:
    """Answers once Kafka has acknowledged the events; they take effect milliseconds later."""
    services: Services = request.app.state.services
    answer = await accept_events(services, await request.body(), request.scope["caller"])
    return encoded_response(answer, EVENTS.status)


async def accept_events(services: Services, body: bytes, caller: Caller) -> bytes:
    """The answer to a body of events, once Kafka has acknowledged them.

    Raises
    ------
    InvalidEvent
        The body breaks the schema, or its tracking id is unknown; one of a group that the caller
        may not send to counts as unknown.
    """
    settings, now_s = services.settings, services.clock()
    message = events.parse(body, now_s=now_s, future_limit_s=settings.future_limit_s)
    tracking_id = message.tracking_id
    group = settings.group if tracking_id is None else await services.tenants.group_of(tracking_id)
    if group is None or not caller.may(Role.SEND, group):
        if tracking_id is None:
            raise Forbidden(f"key {caller.id} may not send events to {settings.group}")
        raise InvalidEvent(f"unknown tracking id {tracking_id!r} - at `$.trackingId`")
    after = await services.publisher.publish(msgspec.structs.replace(message, accepted_at=now_s))
    event_ids = [event.event_id for event in message.event_list if event.event_id is not None]
    return encode(Accepted(len(event_ids), event_ids, after))


class PostRoute(NamedTuple):
    """A route that needs only the body of a request; see `api.fast_path`.

    Attributes
    ----------
    status
        Status of its answer, which `answering` makes as JSON.
    """

    path: str
    status: int
    answering: Callable[[Services, bytes, Caller], Awaitable[bytes]]


EVENTS = PostRoute("/events", 202, accept_events)


@router.delete(
    "/users/{user_id}",
    **documented(
        Erased,
        "Erase a user",
        errors=INVALID_REQUEST_ERROR | SERVER_ERRORS,
        other={202: (Erased, "Accepted by Kafka, not yet in effect.")},
    ),
)
async def erase(
    request: Request, user_id: Annotated[str, Path(min_length=1, max_length=256)]
) -> Response:
    """Erases history, sessions, links and metadata of a user; answers with counts and a receipt.

    Answers once Kafka has acknowledged the erasure: 200 if it is in effect within
    `RECOMMENDER_AFTER_TIMEOUT_S`, else 202. Events that were sent before it and arrive later take
    no effect. After 503 the erasure may not have been accepted: repeat it.
    """
    services: Services = request.app.state.services
    group = services.settings.group
    await services.audit(request.scope, "erase_user", [pseudonym(group, user_id)], group)
    now_s = services.clock()
    held = await user_data_counts(services.store, user_id, now_s=now_s)
    actions = services.tenants.store(actions_group(group))
    of_actions = await user_data_counts(actions, user_id, now_s=now_s)
    after = await services.publisher.publish(
        events.Erasure(services.settings.group, user_id, now_s)
    )
    try:
        is_done = await services.read_your_writes.wait(
            after, wait_s=services.settings.after_timeout_s
        )
    except (TooManyWaiting, Unavailable, *AWAY_ERRORS):
        # Accepted, so it will take effect; when is not known.
        is_done = False
    receipt = erasure_receipt(
        services.settings, user_id, held,
        of_actions=of_actions, erased_at=now_s, after=after, is_in_effect=is_done,
    )  # fmt: skip
    total = {name: count + of_actions[name] for name, count in held.items()}
    erased = Erased(user_id, **total, after=after, receipt=receipt)
    return json_response(erased, 200 if is_done else 202)

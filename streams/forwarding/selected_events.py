"""Selection of the events to forward: by tracker, by type, by a sample of sessions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from models.events import Event, PutEvents
from models.settings import Settings


def selected(put: PutEvents, settings: Settings) -> tuple[PutEvents | None, Sequence[Event]]:
    """The message with its tracking id, and those of its events that are to be forwarded.

    None and no events if its tracker is not forwarded.

    >>> put = PutEvents("s", [Event("click", 1.0), Event("view", 1.0)])
    >>> settings = Settings(forward_tracking_id="aws", forward_event_types={"Click"})
    >>> [event.event_type for event in selected(put, settings)[1]]
    ['click']
    """
    tracking_id = put.tracking_id or settings.tracking_id
    if tracking_id not in settings.forwarded_trackers:
        return None, ()
    put = msgspec.structs.replace(put, tracking_id=tracking_id)
    if not in_sample(put.session_id, settings.forward_sessions):
        return put, ()
    types = settings.forward_event_types
    return put, [e for e in put.event_list if not types or e.event_type.lower() in types]


def in_sample(session_id: str, share: float) -> bool:
    """True if a session is in this share of all sessions; the same in every process.

    A larger share contains the sessions of a smaller one.

    >>> in_sample("any", 1.0), sum(in_sample(f"s{n}", 0.1) for n in range(1000))
    (True, 102)
    """
    digest = hashlib.blake2b(session_id.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64

"""The demo: simulated shoppers on a running stack, and one click that changes an answer."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from models.errors import Unavailable
from ops.simulated_shoppers import ShopClient, simulate_shopping, warm_up
from ops.stack import Stack

EVENTS = 1500
SEED = 7
RATE_PER_S = 5.0
SHOWN = 8
PATIENCE_S = 5.0
DEMO_CACHE_S = 0.2
"""Setting `cache_s` of the demo, so that shared state is fresh in its answers."""


class DemoProof(msgspec.Struct, frozen=True):
    """One click, and the answers before and after it.

    Attributes
    ----------
    before, after
        Item ids of the user's list before the click and after it.
    accepted_to_visible_ms
        Time from Kafka's acknowledgement of the click to an answer that shows its effect.
    reasons
        Reasons of the first item of the new list.
    """

    user_id: str
    before: list[str]
    click: str
    after: list[str]
    accepted_to_visible_ms: float
    changed: bool
    reasons: list[dict[str, Any]]


def show_click(api_url: str) -> DemoProof:
    """A new user clicks the first item shown; raises `Unavailable` if the answer stays the same."""
    with ShopClient(api_url) as client:
        return _proof(client)


def _proof(client: ShopClient) -> DemoProof:
    user_id = f"visitor-{uuid.uuid4().hex[:8]}"
    before = _settled_list(client, user_id)
    click = {"eventType": "click", "itemId": before[0], "sentAt": time.time()}
    client.send(user_id, user_id, [click])
    accepted = time.perf_counter()
    while time.perf_counter() < accepted + PATIENCE_S:
        answer = client.get("/recommend", user_id=user_id, num_results=SHOWN, reasons=True)
        visible = time.perf_counter()
        after = _ids(answer)
        # The list of a new user also changes with the trending items.
        if after != before and answer["freshness"]["userEventAt"]:
            milliseconds = round((visible - accepted) * 1000, 1)
            reasons = answer["items"][0].get("reasons", []) if after else []
            return DemoProof(user_id, before, before[0], after, milliseconds, True, reasons)
    raise Unavailable(f"a click has not changed the answer within {PATIENCE_S:.0f} s")


def as_text(shown: DemoProof) -> str:
    """Both lists side by side, for people.

    >>> print(as_text(DemoProof("u", ["tent", "lamp"], "tent", ["stove"], 9.5, True, [])))
    before the click        after the click on tent, 9.5 ms after it was accepted
      1 tent                  1 stove
      2 lamp
    """
    width = max(22, *(len(item) + 6 for item in shown.before))
    head = (
        f"after the click on {shown.click}, {shown.accepted_to_visible_ms} ms after it was accepted"
    )
    lines = [f"{'before the click':<{width}}  {head}"]
    for place in range(max(len(shown.before), len(shown.after))):
        left, right = (
            f"{place + 1:3} {items[place]}" if place < len(items) else ""
            for items in (shown.before, shown.after)
        )
        lines.append(f"{left:<{width}}  {right}".rstrip())
    causes = [reason["itemId"] for reason in shown.reasons if reason.get("itemId")]
    if causes and shown.after:
        lines.append(f"{shown.after[0]} is there because of {', '.join(causes)}")
    return "\n".join(lines)


def run_demo(
    stack: Stack,
    *,
    once: bool,
    as_json: bool,
    say: Callable[[str], None],
    write: Callable[[str], None],
) -> None:
    """Send simulated events, show the effect of a click, and unless `once` go on until Ctrl-C."""
    warm_up(stack.api_url, events=EVENTS, seed=SEED, now_s=time.time(), say=say)
    shown = show_click(stack.api_url)
    write(msgspec.json.encode(shown).decode() if as_json else as_text(shown))
    if once:
        return
    say(f"click yourself: {stack.api_url}/")
    stop = threading.Event()

    def keep_shopping() -> None:
        seed = SEED
        while not stop.is_set():
            seed += 1
            try:
                simulate_shopping(
                    stack.api_url, rate_per_s=RATE_PER_S, seed=seed, stop=stop, clock=time.time
                )
            except Unavailable as error:
                say(f"simulated shoppers wait: {error}")
                stop.wait(1.0)

    shoppers = threading.Thread(target=keep_shopping, name="shoppers", daemon=True)
    shoppers.start()
    try:
        stack.supervisor.run()
    finally:
        stop.set()
        shoppers.join(timeout=2)


def _settled_list(client: ShopClient, user_id: str) -> list[str]:
    """A new user's list once it is stable: popular items are cached for `cache_s`."""
    seen: list[str] = []
    deadline = time.perf_counter() + PATIENCE_S
    while time.perf_counter() < deadline:
        listed = _ids(client.get("/recommend", user_id=user_id, num_results=SHOWN))
        if listed and listed == seen:
            return listed
        seen = listed
        time.sleep(2.5 * DEMO_CACHE_S)
    raise Unavailable("the list of a new user keeps changing: nothing to compare a click with")


def _ids(answer: dict[str, Any]) -> list[str]:
    return [item["itemId"] for item in answer["items"]]

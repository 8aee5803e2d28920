"""What events of each type count as: in the settings, by their eventValue, and in each group."""

from __future__ import annotations

from typing import Any

import pytest

from models.events import Event
from models.settings import Settings
from models.state import layout
from models.state.event_types import EventTypes
from models.state.messages import stored_events
from models.state.store import Store
from models.state.tenants import Tenants


def test_an_event_value_scales_the_weight() -> None:
    """By the type's scale, within bounds; not for other types, and not without a value."""
    types = EventTypes.of(Settings(event_weights={"watch": 2.0}, value_scales={"Watch": 600.0}))
    values = [None, 600.0, 300.0, 0.0, -5.0, 1e300]
    events = [Event("watch", 1.0, "e", "i", event_value=value) for value in values]
    click = Event("click", 1.0, "e", "i", event_value=5.0)

    weights = [2**one.log2_weight for one in stored_events([*events, click], types)]

    assert weights == pytest.approx([2.0, 2.0, 1.0, 0.2, 0.2, 20.0, 1.0])


def test_a_group_has_types_of_its_own(store: Store) -> None:
    """They add to those of the settings, or replace them; the settings' group keeps its own."""
    own = {"weights": {"Cart": 4.0}, "value_scales": {"watch": 60.0}, "negative": {"Skip": "none"}}
    settings = Settings(group="shop", group_event_types={"outlet": own})
    tenants = Tenants(store.redis, settings)

    shop = EventTypes.of(tenants.store("shop").settings)
    outlet = EventTypes.of(tenants.store("outlet").settings)

    assert (shop.log2_weight("cart"), outlet.log2_weight("cart")) == (1.0, 2.0)
    assert (shop.log2_weight("buy"), outlet.log2_weight("buy")) == pytest.approx((1.585,) * 2, 1e-3)
    assert (shop.effect("skip"), outlet.effect("skip")) == (layout.SINKS, 0)
    assert outlet.effect("dislike") == layout.HIDES
    assert (shop.log2_weight("watch", 30.0), outlet.log2_weight("watch", 30.0)) == (0.0, -1.0)


def test_what_takes_purchases_back_is_known_of_all_groups() -> None:
    """Such events go to the topic of purchases: senders do not know the group."""
    own = {"negative": {"Chargeback": "take_back_purchase", "annul": "take_back_cart"}}
    settings = Settings(group_event_types={"outlet": own})

    kinds = ("return", "chargeback", "annul", "dislike", "click")
    found = [settings.takes_back_purchases(kind) for kind in kinds]
    assert found == [True, True, False, False, False]


@pytest.mark.parametrize(
    "wrong",
    [
        {"negative_types": {"Buy": "hide"}},
        {"negative_types": {"dislike": "shout"}},
        {"value_scales": {"watch": 0.0}},
        {"group_event_types": {"outlet": {"weights": {"dislike": 2.0}}}},
        {"group_event_types": {"outlet": {"negative": {"purchase": "sink"}}}},
        {"group_event_types": {"outlet": {"weight": {}}}},
        {"group": "outlet", "group_event_types": {"outlet": {"weights": {"cart": 2.0}}}},
    ],
)
def test_contradictions_are_refused(wrong: dict[str, Any]) -> None:
    """A type that is negative and something else, an unknown effect, and misspelt members.

    And what would change nothing: types of the group of the settings.
    """
    with pytest.raises(ValueError, match=r"negative|value_scales|weight"):
        Settings(**wrong)

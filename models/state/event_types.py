"""Types of events in a group: their weights, which are purchases, which negative feedback."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from models.state import layout

if TYPE_CHECKING:
    from models.settings.state import StateSettings

EFFECTS = {
    "hide": layout.HIDES,
    "sink": layout.SINKS,
    "take_back_cart": layout.TAKES_BACK_CART,
    "take_back_purchase": layout.TAKES_BACK_PURCHASE,
}
"""Code, in a history, of each effect of a negative event type."""


class EventTypes(NamedTuple):
    """Weight and effect of events of each type; names are in lower case.

    Attributes
    ----------
    weights
        Weight in co-visitation and popularity; other types weigh 1.
    purchases
        Types that are purchases.
    negative
        Effect of each negative type, of `EFFECTS`.
    value_scales
        By type, the eventValue with which an event weighs what its type does.
    carts
        Types that put an item into the cart.
    """

    weights: Mapping[str, float]
    purchases: frozenset[str]
    negative: Mapping[str, str]
    value_scales: Mapping[str, float] = MappingProxyType({})
    carts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: StateSettings) -> EventTypes:
        """Those of the settings."""
        return cls(
            settings.event_weights,
            settings.purchase_types,
            settings.negative_types,
            settings.value_scales,
            settings.cart_types,
        )

    def log2_weight(self, event_type: str, value: float | None = None) -> float:
        """Logarithm of the weight of an event of a type with an eventValue.

        >>> types = EventTypes({"cart": 2.0}, frozenset({"buy"}), {}, {"watch": 600.0})
        >>> types.log2_weight("Cart"), types.log2_weight("click", 5.0)
        (1.0, 0.0)
        >>> types.log2_weight("watch", 300.0)
        -1.0
        """
        kind = event_type.lower()
        weight = self.weights.get(kind, 1.0)
        if value is not None and kind in self.value_scales:
            factor = value / self.value_scales[kind]
            weight *= min(max(factor, layout.LEAST_FACTOR), layout.MOST_FACTOR)
        return math.log2(weight)

    def is_purchase(self, event_type: str) -> bool:
        """True for a purchase."""
        return event_type.lower() in self.purchases

    def effect(self, event_type: str) -> int:
        """Code of a negative type's effect; 0 for any other type.

        >>> EventTypes({}, frozenset(), {"skip": "sink"}).effect("Skip") == layout.SINKS
        True
        """
        name = self.negative.get(event_type.lower())
        return 0 if name is None else EFFECTS[name]

    def for_withdrawals(self) -> dict[str, dict[str, float]]:
        """Weights, scales and kinds by event type, as withdrawals.lua takes them."""
        return {
            "weights": {name: math.log2(weight) for name, weight in self.weights.items()},
            "value_scales": dict(self.value_scales),
            "carts": dict.fromkeys(self.carts, 1.0),
            "purchases": dict.fromkeys(self.purchases, 1.0),
        }

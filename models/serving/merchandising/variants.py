"""Variants of one product: an answer has at most one of them, the best ranked.

Items name their product by the property `ITEM_GROUP_ID`. The recommender leaves the best one of
each among the candidates, by an array of the shared state; after filters and other rules, one is
left by the rule that is here. A group without such items pays a comparison for an answer. Items
that a request gives to be ranked are all ranked.
"""

from __future__ import annotations

import msgspec

from models.metadata_records import VARIANT
from models.serving.merchandising.rules import Cap, Rules
from models.serving.recommender import Recommender

ONE_OF_A_PRODUCT = Cap(VARIANT, 1)
"""The rule that an answer has one variant of a product."""


async def with_variants_rule(
    recommender: Recommender, rules: Rules | None, now_s: float
) -> Rules | None:
    """The rules of a request with that of variants, where an item is one; None stays None."""
    if rules is None or not (await recommender.cache.refresh(now_s)).has_variants:
        return rules
    return msgspec.structs.replace(rules, caps=(*rules.caps, ONE_OF_A_PRODUCT))

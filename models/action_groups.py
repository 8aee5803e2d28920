"""Names of the state groups that hold the actions of dataset groups.

The next-best-action recipe recommends actions, such as "join the loyalty program". The actions of a
dataset group are the items of a state group of their own, and interactions with them its events: so
the atomic step, exactly-once effects, erasure, expiry and snapshots are the same as of items.
"""

from __future__ import annotations

PREFIX = "actions."
"""No dataset group's name has a dot."""


def actions_group(group: str) -> str:
    """State group of a dataset group's actions.

    >>> actions_group("shop")
    'actions.shop'
    """
    return f"{PREFIX}{group}"


def is_actions_group(name: str) -> bool:
    """True for the name of a state group of actions."""
    return name.startswith(PREFIX)


def dataset_group(name: str) -> str:
    """The dataset group that a state group belongs to; itself where it is one.

    >>> dataset_group("actions.shop"), dataset_group("shop")
    ('shop', 'shop')
    """
    return name.removeprefix(PREFIX)

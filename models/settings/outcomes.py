"""Settings of outcomes: what became of served lists, and of experiments."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class OutcomeSettings(BaseSettings):
    """Limits of the served lists that are followed: whether, how long, and how many."""

    outcomes: bool = Field(
        True,
        description="Whether served lists go to the topic `recommendations.served`, and clicks and "
        "purchases are counted as their outcomes; the same in the API and the workers.",
    )
    outcome_window_s: int = Field(
        86400,
        ge=1,
        le=30 * 86400,
        description="An event on an item counts for the last list that showed it to the user up to "
        "this long before.",
    )
    outcome_lists: int = Field(
        400_000,
        ge=100,
        le=100_000_000,
        description="Served lists of a group that are followed in two windows, at most; about 350 "
        "bytes of Redis each. Further ones are not counted at all, so that rates stay right.",
    )
    outcome_hours_s: int = Field(
        14 * 86400, ge=3600, description="How long counts of outcomes by the hour are kept."
    )
    outcome_days_s: int = Field(
        400 * 86400, ge=86400, description="How long counts of outcomes by the day are kept."
    )
    experiment_users: int = Field(
        500_000,
        ge=10,
        description="Users that an experiment counts, at most; about 200 bytes of Redis each.",
    )

"""Settings of the emulator of Amazon Personalize."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from models.api_keys import parse_access

QUOTAS = {
    "schemas": 500,
    "dataset-groups": 5,
    "solutions": 10,
    "campaigns": 5,
    "recommenders": 5,
    "filters": 30,
    "filter-fields": 20,
    "metric-attributions": 1,
    "solution-versions": 1000,
    "tags": 50,
    "pending-dataset-import-jobs": 5,
    "pending-dataset-export-jobs": 5,
    "pending-data-deletion-jobs": 5,
    "pending-batch-inference-jobs": 5,
    "pending-batch-segment-jobs": 5,
    "pending-solution-versions": 20,
}
"""Amazon's documented quotas, and numbers of our own where it documents none."""


class PersonalizeSettings(BaseSettings):
    """Campaigns, access, quotas, jobs and training; comparison with Amazon's own answers."""

    campaigns: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")], str] = (
        Field(
            {
                "default": "aws-user-personalization-v2",
                "similar-items": "aws-similar-items",
                "popularity": "aws-popularity-count",
                "trending": "aws-trending-now",
                "ranking": "aws-personalized-ranking",
            },
            description="Campaigns of the group that are always there, and the recipe of each.",
        )
    )
    personalize_auth: Literal["off", "access-key", "sigv4"] = Field(
        "off",
        description="Who may call /personalize: off (any client, and only while the API listens on "
        "loopback), access-key (who names a known key; no proof) or sigv4 (who signed with its "
        "secret).",
    )
    personalize_access_keys: dict[str, SecretStr] = Field(
        {}, description="Secret of each access key id that may call /personalize."
    )
    personalize_access_roles: dict[str, str] = Field(
        {},
        description="Roles, and dataset groups if not all, of access key ids that may not send, "
        "read and manage in every group: `<id>=send+read@shop`.",
    )
    personalize_max_body_bytes: int = Field(
        4 * 1024 * 1024,
        ge=1024,
        description="Largest request body of /personalize: PutItems takes 320,000 characters.",
    )
    personalize_region: str = Field(
        "us-east-1",
        pattern=r"^[a-z0-9-]{1,32}$",
        description="Region in the ARNs that are given out; in a request, any is accepted.",
    )
    personalize_account: str = Field(
        "000000000000",
        pattern=r"^[0-9]{12}$",
        description="Account in the ARNs that are given out; in a request, any is accepted.",
    )
    personalize_quotas: dict[str, Annotated[int, Field(ge=0, le=1_000_000)]] = Field(
        QUOTAS,
        description="Resources that there may be: of the service (schemas, dataset-groups), of a "
        "solution (solution-versions), of a resource (tags), of a dataset group (the others), and "
        "jobs that are pending or in progress; what is not named keeps its default.",
    )
    job_lease_s: float = Field(
        15.0,
        ge=1,
        le=600,
        description="A job of `recommender jobs` goes on elsewhere when its runner is silent for "
        "this long.",
    )
    import_bad_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of bad rows with which an import still takes the good ones; with more, "
        "nothing is imported.",
    )
    metric_report_s: float = Field(
        900.0,
        ge=1,
        description="How often the metric attribution of a dataset group writes a report of events "
        "to its S3 path, at most.",
    )
    training_min_users: int = Field(
        25, ge=0, description="Users with 2 interactions that a solution version needs."
    )
    training_min_interactions: int = Field(
        1000, ge=0, description="Interactions that a solution version needs."
    )
    training_max_interactions: int = Field(
        20_000,
        ge=100,
        description="Interactions that a solution version is measured on, at most: those of a "
        "sample of users.",
    )
    theme_titles: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_.-]{0,100}$",
        description="Entry point of an installed package, of the group "
        "`streaming_recommender.theme_titles`, that writes the titles of themes; empty: they are "
        "made of the items' own texts.",
    )
    shadow_campaign_arn: str = Field(
        "",
        pattern=r"^(arn:[a-z0-9-]+:personalize:.{1,200}:(campaign|recommender)/.{1,63})?$",
        description="Amazon Personalize campaign to compare answers of /recommend with; "
        "empty: none.",
    )
    shadow_share: float = Field(
        0.01, ge=0, le=1, description="Share of those answers that are compared."
    )

    @field_validator("personalize_access_roles")
    @classmethod
    def _known_roles(cls, roles: dict[str, str]) -> dict[str, str]:
        for text in roles.values():
            parse_access(text)
        return roles

    @field_validator("personalize_quotas")
    @classmethod
    def _all_quotas(cls, quotas: dict[str, int]) -> dict[str, int]:
        unknown = sorted(quotas.keys() - QUOTAS.keys())
        if unknown:
            raise ValueError(f"no such quotas: {', '.join(unknown)}; there are {', '.join(QUOTAS)}")
        return {**QUOTAS, **quotas}

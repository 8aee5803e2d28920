"""The role that each native route and each operation of Amazon Personalize's API asks for.

What is not named here is refused to everybody; `tests/access/test_roles.py` goes over all routes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from starlette.routing import BaseRoute, Match, Router
from starlette.types import Scope

from models.api_keys import Role

SEND, READ, MANAGE, OPERATE = Role.SEND, Role.READ, Role.MANAGE, Role.OPERATE

NATIVE: Final[Mapping[tuple[str, str], Role | None]] = {
    ("GET", "/recommend"): READ,
    ("GET", "/similar/{item_id}"): READ,
    ("GET", "/trending"): READ,
    ("GET", "/popular"): READ,
    ("POST", "/rank"): READ,
    ("GET", "/transparency"): READ,
    # The same questions as by GET, with rules too long for a query string.
    ("POST", "/recommend"): READ,
    ("POST", "/similar/{item_id}"): READ,
    ("POST", "/trending"): READ,
    ("POST", "/popular"): READ,
    ("POST", "/events"): SEND,
    # Where events stand in Kafka, by a token; of no user.
    ("GET", "/events/{after}"): READ,
    ("PUT", "/items"): MANAGE,
    ("POST", "/items/batch"): MANAGE,
    # Not READ: metadata may hold what is not for every visitor, such as a cost.
    ("GET", "/items"): MANAGE,
    # Not READ: counts of purchases are no business of a web page.
    ("GET", "/items/{item_id}"): MANAGE,
    ("DELETE", "/items/{item_id}"): MANAGE,
    ("PUT", "/users"): MANAGE,
    ("GET", "/users/{user_id}"): MANAGE,
    ("DELETE", "/users/{user_id}"): MANAGE,
    ("GET", "/users/{user_id}/export"): MANAGE,
    ("GET", "/users/{user_id}/lists"): MANAGE,
    ("GET", "/filters"): MANAGE,
    ("PUT", "/filters/{name}"): MANAGE,
    ("DELETE", "/filters/{name}"): MANAGE,
    ("GET", "/segments"): MANAGE,
    ("PUT", "/segments/{name}"): MANAGE,
    ("DELETE", "/segments/{name}"): MANAGE,
    ("GET", "/segments/{name}/users"): MANAGE,
    ("GET", "/placements"): MANAGE,
    # It answers for any user.
    ("POST", "/placements/preview"): MANAGE,
    ("GET", "/placements/{name}"): MANAGE,
    ("PUT", "/placements/{name}"): MANAGE,
    ("DELETE", "/placements/{name}"): MANAGE,
    ("GET", "/placements/{name}/history"): MANAGE,
    ("POST", "/placements/{name}/rollback"): MANAGE,
    # Not READ: counts of purchases are no business of a web page.
    ("GET", "/outcomes"): MANAGE,
    ("GET", "/experiments"): MANAGE,
    ("GET", "/experiments/{name}"): MANAGE,
    ("POST", "/experiments/{name}/start"): MANAGE,
    ("POST", "/experiments/{name}/stop"): MANAGE,
    ("GET", "/forwarding"): OPERATE,
    ("GET", "/live"): OPERATE,
    ("GET", "/figures"): OPERATE,
    # Not OPERATE: it names users.
    ("GET", "/live/events"): MANAGE,
    ("GET", "/events"): MANAGE,
    ("GET", "/status"): OPERATE,
    ("GET", "/dead-letters"): OPERATE,
    ("POST", "/dead-letters/replay"): OPERATE,
    ("POST", "/dead-letters/discard"): OPERATE,
    ("GET", "/settings"): OPERATE,
    ("GET", "/exposure"): OPERATE,
    ("GET", "/metrics"): OPERATE,
    # With no more roles and groups than the caller has: `api.routes.operations.api_keys`.
    ("GET", "/keys"): OPERATE,
    ("POST", "/keys"): OPERATE,
    ("DELETE", "/keys/{key_id}"): OPERATE,
    ("GET", "/audit"): OPERATE,
    # To callers without OPERATE, whether it is ready, without reasons.
    ("GET", "/readyz"): None,
    ("GET", "/healthz"): None,
    ("GET", "/login"): None,
    ("POST", "/login"): None,
    ("POST", "/logout"): None,
    ("GET", "/login/oidc"): None,
    ("GET", "/login/oidc/callback"): None,
    ("GET", "/login/oidc/logout"): None,
    ("GET", "/"): READ,
    ("GET", "/console"): READ,
    # Files of the pages, and the SDK for pages of other origins; the same for everybody.
    ("GET", "/static"): None,
    ("GET", "/docs"): READ,
    ("GET", "/docs/start.js"): None,
    ("GET", "/docs/assets"): None,
    ("GET", "/openapi.json"): READ,
}
"""Role by method and path of the route; None for everybody."""

PAGES = frozenset(("/", "/console", "/docs"))
"""Routes that people open in a browser, which asks them for a key."""

OPERATIONS: Final[Mapping[str, Role]] = {
    **dict.fromkeys(("PutEvents", "PutActionInteractions"), SEND),
    **dict.fromkeys(
        ("GetRecommendations", "GetPersonalizedRanking", "GetActionRecommendations"), READ
    ),
    **dict.fromkeys(
        (
            "PutItems", "PutUsers", "PutActions",
            "CreateBatchInferenceJob", "CreateBatchSegmentJob", "CreateCampaign",
            "CreateDataDeletionJob", "CreateDataset",
            "CreateDatasetExportJob",
            "CreateDatasetGroup", "CreateDatasetImportJob", "CreateEventTracker", "CreateFilter",
            "CreateMetricAttribution", "CreateRecommender", "CreateSchema", "CreateSolution",
            "CreateSolutionVersion",
            "DeleteCampaign", "DeleteDataset", "DeleteDatasetGroup", "DeleteEventTracker",
            "DeleteFilter", "DeleteMetricAttribution", "DeleteRecommender", "DeleteSchema",
            "DeleteSolution",
            "DescribeAlgorithm", "DescribeBatchInferenceJob", "DescribeBatchSegmentJob",
            "DescribeCampaign", "DescribeDataDeletionJob", "DescribeDataset",
            "DescribeDatasetExportJob", "DescribeDatasetGroup", "DescribeDatasetImportJob",
            "DescribeEventTracker", "DescribeFeatureTransformation", "DescribeFilter",
            "DescribeMetricAttribution", "DescribeRecipe", "DescribeRecommender",
            "DescribeSchema", "DescribeSolution", "DescribeSolutionVersion", "GetSolutionMetrics",
            "ListBatchInferenceJobs", "ListBatchSegmentJobs", "ListCampaigns",
            "ListDataDeletionJobs", "ListDatasetExportJobs", "ListDatasetGroups",
            "ListDatasetImportJobs", "ListDatasets", "ListEventTrackers", "ListFilters",
            "ListMetricAttributionMetrics", "ListMetricAttributions", "ListRecipes",
            "ListRecommenders", "ListSchemas", "ListSolutionVersions", "ListSolutions",
            "ListTagsForResource",
            "StartRecommender", "StopRecommender", "StopSolutionVersionCreation",
            "TagResource", "UntagResource",
            "UpdateCampaign", "UpdateDataset", "UpdateMetricAttribution", "UpdateRecommender",
            "UpdateSolution",
        ),
        MANAGE,
    ),
}  # fmt: skip
"""Role by operation of Amazon Personalize's API."""

SHARED = frozenset(
    (
        "CreateSchema", "DescribeSchema", "ListSchemas", "DescribeRecipe", "ListRecipes",
        "DescribeAlgorithm", "DescribeFeatureTransformation",
    )
)  # fmt: skip
"""Operations on what belongs to no dataset group; a role in any group is enough."""


def leaf_routes(router: Router) -> Iterator[BaseRoute]:
    """Routes of a router in their order; releases of FastAPI may nest those of included ones."""
    for route in router.routes:
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            yield from leaf_routes(included)


def route_path(router: Router, scope: Scope) -> str | None:
    """Path of the route that answers a request, as `NATIVE` names it; None without a route."""
    for route in leaf_routes(router):
        if route.matches(scope)[0] is Match.FULL:
            return str(getattr(route, "path", ""))
    return None

"""Metric attributions: metrics of events by the source that recommended the items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.personalize.context import PersonalizeContext
from api.personalize.control.crud import (
    delete_operation,
    describe_operation,
    get_resource,
    list_operation,
    new_resource,
    quota_limit,
)
from api.personalize.control.pagination import get_page
from api.personalize.dataset_columns import check_named_columns, schema_of
from api.personalize.protocol import Operation
from models.errors import InvalidInput, ResourceAlreadyExists
from models.metadata_records import normalized
from models.personalize.metric_reports import EXPRESSION, metric_of
from models.personalize.resources.resource import Resource

MAX_METRICS = 10

EVENT_VALUE = normalized("EVENT_VALUE")
"""Column of interactions that every event may have, whatever the schema."""

Metrics = list[dict[str, str]]


async def create_metric_attribution(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """Create a metric attribution of a dataset group."""
    group = await get_resource(context, request["datasetGroupArn"], "dataset-group")
    metrics = _checked([], request["metrics"])
    await _check_columns(context, group.path, metrics)
    path = f"metric-attribution/{request['name']}"
    attribution = new_resource(context, path, request, group.path, metrics=metrics)
    await context.registry.create(
        attribution, quota_limit(context, "metric-attribution", group.path)
    )
    return {"metricAttributionArn": context.registry.arn(path)}


async def update_metric_attribution(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """Remove metrics by name, then add others; or change the output."""
    if "metricAttributionArn" not in request:
        raise InvalidInput("metricAttributionArn is missing")
    attribution = await get_resource(context, request["metricAttributionArn"], "metric-attribution")
    now_s = context.services.clock()
    removed = frozenset(request.get("removeMetrics", ()))
    added = request.get("addMetrics", [])
    _checked([], added)
    await _check_columns(context, attribution.links[0], added)

    def updated(old: Resource) -> Resource:
        if unknown := removed - {metric["metricName"] for metric in old.data["metrics"]}:
            raise InvalidInput(f"removeMetrics: there is no metric {min(unknown)}")
        kept = [metric for metric in old.data["metrics"] if metric["metricName"] not in removed]
        return old.with_data(
            now_s=now_s,
            metrics=_checked(kept, added),
            metricsOutputConfig=request.get("metricsOutputConfig"),
        )

    await context.registry.change(attribution.path, updated)
    return {"metricAttributionArn": context.registry.arn(attribution.path)}


async def list_metric_attribution_metrics(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """List the metrics of a metric attribution."""
    if "metricAttributionArn" not in request:
        raise InvalidInput("metricAttributionArn is missing")
    attribution = await get_resource(context, request["metricAttributionArn"], "metric-attribution")
    page, more = get_page(attribution.data["metrics"], attribution.path, request)
    return {"metrics": list(page), **more}


def _checked(metrics: Metrics, added: Sequence[dict[str, str]]) -> Metrics:
    """Metrics with others added; raises Personalize's error for a repeated or invalid one."""
    names = {metric["metricName"] for metric in metrics}
    for metric in added:
        name = metric["metricName"]
        if name in names:
            raise ResourceAlreadyExists(f"the metric {name} already exists")
        if not EXPRESSION.fullmatch(metric["expression"].strip()):
            raise InvalidInput(
                f"the expression of {name} must be SUM(Items.<column>), SUM(Interactions.<column>)"
                " or SAMPLECOUNT()"
            )
        names.add(name)
    if len(names) > MAX_METRICS:
        raise InvalidInput(f"a metric attribution has at most {MAX_METRICS} metrics")
    return [*metrics, *added]


async def _check_columns(context: PersonalizeContext, group: str, metrics: Metrics) -> None:
    """Raise `InvalidInput` for a sum of a column that its dataset lacks, or that holds texts."""
    for metric in map(metric_of, metrics):
        dataset = "ITEMS" if metric.is_of_items else "INTERACTIONS"
        if not metric.column or await schema_of(context, group, dataset) is None:
            continue
        if metric.is_of_items or normalized(metric.column) != EVENT_VALUE:
            where = f"the expression of {metric.name}"
            await check_named_columns(
                context, group, dataset, [metric.column], where, is_numeric=True
            )


OPERATIONS: dict[str, Operation] = {
    "CreateMetricAttribution": create_metric_attribution,
    "DescribeMetricAttribution": describe_operation("metric-attribution"),
    "ListMetricAttributions": list_operation("metric-attribution"),
    "ListMetricAttributionMetrics": list_metric_attribution_metrics,
    "UpdateMetricAttribution": update_metric_attribution,
    "DeleteMetricAttribution": delete_operation("metric-attribution"),
}

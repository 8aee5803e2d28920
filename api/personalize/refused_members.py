"""Members of requests that are refused by name, because nothing here would follow from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from models.errors import InvalidInput

NO_KEYS = "nothing is encrypted with a key of KMS here; leave it out"

NO_VALUES = "values of events are not kept; send, or import, the events that count only"

REFUSED: Mapping[str, str] = {
    "CreateDatasetGroup.kmsKeyArn": NO_KEYS,
    "CreateDatasetGroup.roleArn": "it would be for a kmsKeyArn, and there is none here",
    **{
        f"{name}.kmsKeyArn": NO_KEYS
        for name in (
            "CreateBatchInferenceJob.jobInput.s3DataSource",
            "CreateBatchInferenceJob.jobOutput.s3DataDestination",
            "CreateBatchSegmentJob.jobInput.s3DataSource",
            "CreateBatchSegmentJob.jobOutput.s3DataDestination",
            "CreateDatasetExportJob.jobOutput.s3DataDestination",
            "CreateMetricAttribution.metricsOutputConfig.s3DataDestination",
            "UpdateMetricAttribution.metricsOutputConfig.s3DataDestination",
        )
    },
    "CreateSolution.solutionConfig.eventValueThreshold": NO_VALUES,
    "CreateSolution.solutionConfig.eventsConfig.eventParametersList[].eventValueThreshold": (
        NO_VALUES
    ),
    "UpdateSolution.solutionUpdateConfig.eventsConfig.eventParametersList[].eventValueThreshold": (
        NO_VALUES
    ),
    "CreateSolution.solutionConfig.hpoConfig.hpoObjective.metricRegex": (
        "no log of a training is searched; metricName names the metric"
    ),
}
"""Reasons of refusals by `<operation>.<path of the member>`; `[]` is any of a list."""

NO_ROLES = "S3 is read and written with the credentials of the service; only its form is checked"
NO_RATES = "every rate is served alike; it is described, and nothing costs by it"

NOT_LEARNED = "it is in Kafka; as at Amazon, nothing is learned from it"

DESCRIBED: Mapping[str, str] = {
    **{
        f"PutActionInteractions.actionInteractions[].{name}": NOT_LEARNED
        for name in ("recommendationId", "impression[]", "properties")
    },
    **{
        f"{name}.roleArn": NO_ROLES
        for name in (
            "CreateBatchInferenceJob",
            "CreateBatchSegmentJob",
            "CreateDataDeletionJob",
            "CreateDatasetExportJob",
            "CreateDatasetImportJob",
            "CreateMetricAttribution.metricsOutputConfig",
            "UpdateMetricAttribution.metricsOutputConfig",
        )
    },
    "PutEvents.eventList[].eventValue": (
        "it is in Kafka, and forwarded; no event is chosen by its value, see eventValueThreshold"
    ),
    "CreateSolution.solutionConfig.hpoConfig.hpoResourceConfig.maxParallelTrainingJobs": (
        "sets of hyperparameters are measured one after another"
    ),
    **{
        f"{name}.{member}.USERS": "no column of users is trained on; filters read them"
        for name in (
            "CreateSolution.solutionConfig.trainingDataConfig",
            "CreateRecommender.recommenderConfig.trainingDataConfig",
            "UpdateRecommender.recommenderConfig.trainingDataConfig",
        )
        for member in ("excludedDatasetColumns", "includedDatasetColumns")
    },
    "CreateCampaign.minProvisionedTPS": NO_RATES,
    "UpdateCampaign.minProvisionedTPS": NO_RATES,
    "CreateRecommender.recommenderConfig.minRecommendationRequestsPerSecond": NO_RATES,
    "UpdateRecommender.recommenderConfig.minRecommendationRequestsPerSecond": NO_RATES,
}
"""Members that say who may read, or what is paid, at Amazon: described here, and why no more."""


def members_table() -> str:
    """A Markdown table of the members that are refused, or described and no more, and why."""
    lines = ["| member | here | why |", "|---|---|---|"]
    for here, table in (("refused", REFUSED), ("described", DESCRIBED)):
        lines += [f"| {member} | {here} | {reason} |" for member, reason in table.items()]
    return "\n".join(lines)


def refuse_members(operation: str, request: Mapping[str, Any]) -> None:
    """Raise `InvalidInput`, which names it, for a member of a checked request that is refused."""
    for path, reason in _refused_of(operation):
        if _is_given(request, path.split(".")):
            raise InvalidInput(f"{path} is not supported by streaming-recommender: {reason}")


def _refused_of(operation: str) -> Iterator[tuple[str, str]]:
    for name, reason in REFUSED.items():
        its, _, path = name.partition(".")
        if its == operation:
            yield path, reason


def _is_given(value: Any, path: list[str]) -> bool:  # noqa: ANN401  any JSON
    """True if a document has a value at a path."""
    if not path:
        return True
    name, is_list = path[0].removesuffix("[]"), path[0].endswith("[]")
    if name not in value:
        return False
    inner = value[name] if is_list else [value[name]]
    return any(_is_given(one, path[1:]) for one in inner)

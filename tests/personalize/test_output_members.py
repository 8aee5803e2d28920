"""Every member of every output of the API is sent, or a table says why it never is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from botocore.model import ListShape, MapShape, Shape, StructureShape

from api.personalize.service_model import service_operations
from tests.personalize.answer_fixtures import Shop, shop
from tests.personalize.control_fixtures import INTERACTIONS, ROLE, Control, recipe_arn
from tests.personalize.test_input_members import World, world

NEVER_FAILS = "what takes no time does not fail"

NOT_SENT: Mapping[str, str] = {
    "**.kmsKeyArn": "refused: nothing is encrypted with a key of KMS",
    "DescribeDatasetGroup.datasetGroup.roleArn": "refused: it would be for a kmsKeyArn",
    "**.eventValueThreshold": "refused: values of events are not kept",
    "**.metricRegex": "refused: no log of a training is searched",
    "DescribeAlgorithm.algorithm.algorithmImage.*": "algorithms are no containers",
    "DescribeAlgorithm.algorithm.defaultResourceConfig": "they have no machines of their own",
    "DescribeAlgorithm.algorithm.roleArn": "they run with the service's credentials",
    "DescribeAlgorithm.algorithm.trainingInputMode": "they read no files",
    "**.latest*Update.failureReason": "an update is in effect at once, or refused",
    "*Campaign*.**.failureReason": NEVER_FAILS,
    "*Filter*.**.failureReason": NEVER_FAILS,
    "*MetricAttribution*.**.failureReason": NEVER_FAILS,
    "*DatasetGroup*.**.failureReason": NEVER_FAILS,
    "GetPersonalizedRanking.personalizedRanking[].promotionName": "rankings have no promotions",
    "GetPersonalizedRanking.personalizedRanking[].reason[]": "for recommendations only",
    "GetPersonalizedRanking.personalizedRanking[].metadata": "test_filtering.test_metadata_columns",
    "GetRecommendations.itemList[].metadata": "test_filtering.test_metadata_columns",
    "Get*Recommendations.actionList[].*": "test_actions",
    "GetActionRecommendations.recommendationId": "test_actions",
    "DescribeDataset.dataset.trackingId": "test_actions",
}
"""Why a member is not sent in the scenario of this module, or which test shows it."""

HPO = {
    "hpoObjective": {"metricName": "coverage", "type": "Maximize"},
    "hpoResourceConfig": {"maxNumberOfTrainingJobs": "2", "maxParallelTrainingJobs": "1"},
}
EXPLORATION = {"itemExplorationConfig": {"explorationWeight": "0.5"}}
COLUMNS = {"trainingDataConfig": {"excludedDatasetColumns": {"ITEMS": ["GENRE"]}}}
INCLUDED = {"trainingDataConfig": {"includedDatasetColumns": {"ITEMS": ["PRICE"]}}}
CAMPAIGN = {
    **EXPLORATION,
    "rankingInfluence": {"POPULARITY": 0.5},
    "enableMetadataWithRecommendations": True,
}


def members_of(shape: Shape | None, path: str) -> Iterator[str]:
    """Every member of a shape that holds a value, as `<operation>.<path>`; `[]` is of a list."""
    if isinstance(shape, StructureShape):
        for name, inner in shape.members.items():
            yield from members_of(inner, f"{path}.{name}")
    elif isinstance(shape, ListShape):
        yield from members_of(shape.member, f"{path}[]")
    elif shape is not None:
        yield path


def sent(value: Any, shape: Shape | None, path: str) -> Iterator[str]:
    """The members of a shape that an answer has a value in."""
    if isinstance(shape, StructureShape):
        for name, inner in value.items():
            yield from sent(inner, shape.members[name], f"{path}.{name}")
    elif isinstance(shape, ListShape):
        for one in value:
            yield from sent(one, shape.member, f"{path}[]")
    elif shape is not None and not (isinstance(shape, MapShape) and not value):
        yield path


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Members of all answers of control planes from now on."""
    found: set[str] = set()
    call = Control.__call__

    async def noting(self: Control, operation: str, **request: Any) -> dict[str, Any]:
        answer = await call(self, operation, **request)
        found.update(sent(answer, service_operations()[operation].model.output_shape, operation))
        return answer

    monkeypatch.setattr(Control, "__call__", noting)
    return found


async def describe(control: Control, *arns: str) -> None:
    """Describe resources, by the type in their ARNs."""
    for arn in arns:
        kind = arn.rpartition(":")[2].split("/")
        noun = "".join(part.title() for part in kind[0].split("-"))
        if kind[0] == "solution" and len(kind) == 3:
            noun = "SolutionVersion"
        await control(f"Describe{noun}", **{f"{noun[0].lower()}{noun[1:]}Arn": arn})


async def every_page(control: Control) -> None:
    """List everything in pages of one element."""
    attribution = control.arn("metric-attribution/one")
    for operation in service_operations():
        if operation.startswith("List") and "TagsFor" not in operation:
            of_one = operation == "ListMetricAttributionMetrics"
            parent = {"metricAttributionArn": attribution} if of_one else {}
            await control(operation, **parent, maxResults=1)
            await control(operation, **parent)


async def options_of_solutions(control: Control, group: str) -> None:
    """Solutions with every option, their versions, and a campaign with an update."""
    ranges = {
        "continuousHyperParameterRanges": [
            {"name": "popularity_discount_factor", "minValue": 0.1, "maxValue": 0.9}
        ]
    }
    sequence = {
        "integerHyperParameterRanges": [{"name": "bptt", "minValue": 4, "maxValue": 8}],
        "categoricalHyperParameterRanges": [{"name": "recency_mask", "values": ["true"]}],
    }
    configs: dict[str, dict[str, Any]] = {
        "aws-sims": {
            "solutionConfig": {
                "hpoConfig": {**HPO, "algorithmHyperParameterRanges": ranges},
                "featureTransformationParameters": {"max_user_history_length_percentile": "0.9"},
            },
            "performHPO": True,
        },
        "aws-user-personalization": {
            "solutionConfig": {
                "hpoConfig": {"algorithmHyperParameterRanges": sequence},
                "algorithmHyperParameters": {"bptt": "8"},
                "autoTrainingConfig": {"schedulingExpression": "rate(2 days)"},
                "eventsConfig": {"eventParametersList": [{"eventType": "buy", "weight": 0.5}]},
                "optimizationObjective": {
                    "itemAttribute": "PRICE",
                    "objectiveSensitivity": "LOW",
                },
                **COLUMNS,
            },
            "performHPO": True,
        },
        "aws-item-affinity": {"eventType": "buy", "solutionConfig": INCLUDED},
    }
    for recipe, config in configs.items():
        arn = await control.solution(group, f"o-{recipe}", recipe, **config)
        made = await control("CreateSolutionVersion", solutionArn=arn, name=f"v-{recipe}")
        tuned = {"algorithmHyperParameters": {"bptt": "4"}}
        await control.jobs.succeed(
            await control.claim_next(),
            now_s=control.now_s,
            data={"trainingHours": 0.1, "tunedHPOParams": tuned},
        )
        await describe(control, arn, made["solutionVersionArn"])
    chosen = await control(
        "CreateSolution",
        name="auto",
        datasetGroupArn=group,
        performAutoML=True,
        solutionConfig={
            "autoMLConfig": {
                "metricName": "coverage",
                "recipeList": [recipe_arn("aws-user-personalization")],
            }
        },
    )
    best = {"recipeArn": recipe_arn("aws-user-personalization"), "trainingHours": 0.1}
    version = await control.version(chosen["solutionArn"], data=best)
    await control(
        "UpdateSolution",
        solutionArn=chosen["solutionArn"],
        performAutoTraining=True,
        performIncrementalUpdate=False,
        solutionUpdateConfig={
            "autoTrainingConfig": {"schedulingExpression": "rate(3 days)"},
            "eventsConfig": {"eventParametersList": [{"eventType": "buy", "weight": 0.5}]},
        },
    )
    await describe(control, chosen["solutionArn"], version)
    synced = {"syncWithLatestSolutionVersion": True}
    latest = f"{chosen['solutionArn']}/$LATEST"
    campaign = await control(
        "CreateCampaign",
        name="options",
        solutionVersionArn=latest,
        campaignConfig={**CAMPAIGN, **synced},
    )
    await control("UpdateCampaign", **campaign, campaignConfig={**CAMPAIGN, **synced})
    await describe(control, campaign["campaignArn"])
    users = await control.version(await control.solution(group, "users", "aws-item-affinity"))
    similar = await control.version(await control.solution(group, "themes", "aws-similar-items"))
    job = {
        "jobName": "options",
        "solutionVersionArn": version,
        "roleArn": ROLE,
        "jobInput": {"s3DataSource": {"path": "s3://b/in"}},
        "jobOutput": {"s3DataDestination": {"path": "s3://b/out"}},
        "filterArn": (
            await control(
                "CreateFilter",
                name="options",
                datasetGroupArn=group,
                filterExpression='EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("buy")',
            )
        )["filterArn"],
    }
    made = await control(
        "CreateBatchInferenceJob",
        **job,
        batchInferenceJobConfig={**EXPLORATION, "rankingInfluence": {"FRESHNESS": 0.5}},
    )
    await describe(control, made["batchInferenceJobArn"])
    by_user = await control(
        "CreateFilter",
        name="users",
        datasetGroupArn=group,
        filterExpression='EXCLUDE UserID WHERE Interactions.EVENT_TYPE IN ("buy")',
    )
    made = await control("CreateBatchSegmentJob", **{**job, "solutionVersionArn": users, **by_user})
    await describe(control, made["batchSegmentJobArn"])
    made = await control(
        "CreateBatchInferenceJob",
        **{**job, "jobName": "themes", "solutionVersionArn": similar},
        batchInferenceJobMode="THEME_GENERATION",
        themeGenerationConfig={"fieldsForThemeGeneration": {"itemName": "GENRE"}},
    )
    await describe(control, made["batchInferenceJobArn"])


async def answers(control: Control, one: Shop) -> None:
    """Recommendations with reasons and promotions, a ranking, and metrics."""
    campaign = await one.campaign("answers", trained={"hidden": {"metrics": {"coverage": 1.0}}})
    made = await control("DescribeCampaign", campaignArn=campaign)
    version = made["campaign"]["solutionVersionArn"]
    await control("GetSolutionMetrics", solutionVersionArn=version)
    filtered = {"filterArn": control.arn("filter/options"), "percentPromotedItems": 50}
    await one.items(campaign, promotions=[{**filtered, "name": "p"}])
    ranking = await one.campaign("ranked", "aws-personalized-ranking")
    await control(
        "GetPersonalizedRanking", campaignArn=ranking, userId="u0", inputList=["i1", "i2"]
    )


async def metrics(control: Control, attribution: str) -> None:
    """A changed metric attribution, beside another."""
    place = {"roleArn": ROLE, "s3DataDestination": {"path": "s3://b/reports"}}
    more = [{"metricName": "n", "eventType": "buy", "expression": "SAMPLECOUNT()"}]
    await control(
        "UpdateMetricAttribution",
        metricAttributionArn=attribution,
        addMetrics=more,
        removeMetrics=[],
        metricsOutputConfig=place,
    )
    other = control.arn("dataset-group/other")
    await control("CreateMetricAttribution", name="other", datasetGroupArn=other, metrics=more,
                  metricsOutputConfig=place)  # fmt: skip
    await describe(control, attribution)


async def more_jobs(control: Control, made: World) -> None:
    """A second one of each kind of job on data, one of them done, and a version that fails."""
    common = {"jobName": "two", "roleArn": ROLE}
    source = {"dataSource": {"dataLocation": "s3://b/k"}}
    of_dataset = {**common, "datasetArn": made.arns["Dataset"]}
    await control("CreateDatasetImportJob", **of_dataset, **source,
                  publishAttributionMetricsToS3=True)  # fmt: skip
    await control("CreateDatasetExportJob", **of_dataset,
                  jobOutput={"s3DataDestination": {"path": "s3://b/out"}})  # fmt: skip
    group = {"datasetGroupArn": control.arn("dataset-group/custom")}
    deletion = await control("CreateDataDeletionJob", **common, **source, **group)
    while (job := await control.claim_next()).path != "data-deletion-job/two":
        await control.jobs.fail(job, "for the test", now_s=control.now_s)
        await describe(control, control.arn(job.path))
    await control.jobs.succeed(job, now_s=control.now_s, data={"numDeleted": 3})
    await describe(control, *deletion.values())
    await control("CreateSolutionVersion", solutionArn=made.arns["Solution"])


async def failed_jobs(control: Control) -> None:
    """Fail whatever job is unfinished, and describe it."""
    while (job := await control.jobs.claim(now_s=control.now_s, lease_s=60)) is not None:
        await control.jobs.fail(job, "for the test", now_s=control.now_s)
        await describe(control, control.arn(job.path))


def pattern_of(text: str) -> str:
    """A regular expression of a pattern: `*` is any part of a name, `**` anything."""
    parts = (re.escape(part).replace(r"\*", "[^.]*") for part in text.split("**"))
    return ".*".join(parts)


async def test_every_member_is_sent(control: Control, seen: set[str]) -> None:
    """Or stands in the table, which names no member that is sent here."""
    one = await shop(control)
    await options_of_solutions(control, one.group)
    await failed_jobs(control)
    await answers(control, one)
    domain = await control.group("films", domain="ECOMMERCE")
    await control.dataset(
        domain, "ITEM_ID", "PRICE:null|float", "GENRE:categorical", "CATEGORY_L1:categorical",
        kind="ITEMS", domain="ECOMMERCE",
    )  # fmt: skip
    for name, columns in (("excluded", COLUMNS), ("included", INCLUDED)):
        arn = await control.recommender(domain, name, recommenderConfig=columns)
        await control.measured(arn, coverage=0.5)
        await control("UpdateRecommender", recommenderArn=arn, recommenderConfig=columns)
        await describe(control, arn)
    failed = await control.recommender(domain, "failed")
    await failed_jobs(control)
    made = await world(control)
    config = {**EXPLORATION, "enableMetadataWithRecommendations": True,
              "minRecommendationRequestsPerSecond": 2}  # fmt: skip
    await control("UpdateRecommender", recommenderArn=made.arns["Recommender"],
                  recommenderConfig=config)  # fmt: skip
    await control("StopRecommender", recommenderArn=made.arns["Recommender"])
    await control("StartRecommender", recommenderArn=made.arns["Recommender"])
    await describe(control, *made.arns.values(), one.group, domain, failed)
    await metrics(control, made.arns["MetricAttribution"])
    await control("ListTagsForResource", resourceArn=made.arns["Campaign"])
    for recipe in ("aws-sims", "aws-user-personalization"):
        for kind, noun in (("recipe", "Recipe"), ("algorithm", "Algorithm"),
                           ("feature-transformation", "FeatureTransformation")):  # fmt: skip
            arn = f"arn:aws:personalize:::{kind}/{recipe}"
            await control(f"Describe{noun}", **{f"{noun[0].lower()}{noun[1:]}Arn": arn})
    await failed_jobs(control)
    await more_jobs(control, made)
    await failed_jobs(control)
    schema = await control.schema("wide", *INTERACTIONS, "DEVICE:null|string")
    await control("UpdateDataset", datasetArn=made.arns["Dataset"], schemaArn=schema)
    await describe(control, made.arns["Dataset"], control.arn("schema/films-ITEMS"))
    await describe(control, made.arns["Solution"])
    await every_page(control)
    members = {
        member
        for name, operation in service_operations().items()
        for member in members_of(operation.model.output_shape, name)
    }

    tabled = {
        member
        for member in members
        if any(re.fullmatch(pattern_of(pattern), member) for pattern in NOT_SENT)
    }
    assert members - seen == tabled
    unused = [
        pattern
        for pattern in NOT_SENT
        if not any(re.fullmatch(pattern_of(pattern), member) for member in members)
    ]
    assert unused == []

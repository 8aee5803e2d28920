"""Programs written for Amazon Personalize, from data in S3 to answers; only endpoints differ."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.personalize.control_fixtures import INTERACTIONS, ROLE, recipe_arn, schema_text
from tests.personalize.jobs_fixtures import GENRES, START_S, Service, csv_text, ratings

METRICS = {
    "coverage",
    "mean_reciprocal_rank_at_25",
    *(f"normalized_discounted_cumulative_gain_at_{k}" for k in (5, 10, 25)),
    *(f"precision_at_{k}" for k in (5, 10, 25)),
}
EVENTS = [*INTERACTIONS, "EVENT_TYPE", "EVENT_VALUE:float"]
POLICY = {
    "Version": "2012-10-17",
    "Id": "PersonalizeS3BucketAccessPolicy",
    "Statement": [
        {
            "Sid": "PersonalizeS3BucketAccessPolicy",
            "Effect": "Allow",
            "Principal": {"Service": "personalize.amazonaws.com"},
            "Action": ["s3:GetObject", "s3:ListBucket"],
            "Resource": ["arn:aws:s3:::data", "arn:aws:s3:::data/*"],
        }
    ],
}


def test_the_boto3_tutorial(jobs_service: Service) -> None:
    """From schemas to recommendations, with data of all three types out of S3."""
    one, personalize = jobs_service, jobs_service.personalize
    rows = ratings()
    group = personalize.create_dataset_group(name="tutorial")["datasetGroupArn"]
    datasets = {
        "INTERACTIONS": one.dataset(group, "INTERACTIONS", schema_text(*EVENTS)),
        "ITEMS": one.dataset(group, "ITEMS", schema_text("ITEM_ID", "GENRES:categorical")),
        "USERS": one.dataset(group, "USERS", schema_text("USER_ID", "AGE:int")),
    }
    one.s3.put_bucket_policy(Bucket="data", Policy=json.dumps(POLICY))
    columns = [*INTERACTIONS, "EVENT_TYPE", "EVENT_VALUE"]
    texts = {
        "INTERACTIONS": csv_text(columns, rows),
        "ITEMS": csv_text(
            ["ITEM_ID", "GENRES"],
            [{"ITEM_ID": f"m{n}", "GENRES": GENRES[n % len(GENRES)]} for n in range(80)],
        ),
        "USERS": csv_text(["USER_ID", "AGE"], [{"USER_ID": f"u{n}", "AGE": n} for n in range(60)]),
    }
    for kind, text in texts.items():
        where = one.put("data", f"tutorial/{kind.lower()}.csv", text)
        job = one.imported(f"tutorial-{kind.lower()}", datasets[kind], where)
        assert (job["status"], job.get("failureReason")) == ("ACTIVE", None)

    recipes = [recipe["recipeArn"] for recipe in personalize.list_recipes()["recipes"]]
    assert recipe_arn("aws-user-personalization") in recipes
    solution = personalize.create_solution(
        name="tutorial", datasetGroupArn=group, recipeArn=recipe_arn("aws-user-personalization")
    )["solutionArn"]
    version = one.version(solution)
    assert (version["status"], version.get("failureReason")) == ("ACTIVE", None)
    measured = personalize.get_solution_metrics(solutionVersionArn=version["solutionVersionArn"])[
        "metrics"
    ]
    assert set(measured) == METRICS
    assert measured["mean_reciprocal_rank_at_25"] > 0
    assert 0 < measured["coverage"] <= 1

    campaign = personalize.create_campaign(
        name="tutorial", solutionVersionArn=version["solutionVersionArn"], minProvisionedTPS=1
    )["campaignArn"]
    assert personalize.describe_campaign(campaignArn=campaign)["campaign"]["status"] == "ACTIVE"
    answer = one.runtime.get_recommendations(campaignArn=campaign, userId="u1")
    items = [item["itemId"] for item in answer["itemList"]]
    assert len(items) == 25
    assert sum(GENRES[int(item[1:]) % 4] == GENRES[1] for item in items[:10]) >= 5
    assert no_scratch_is_left(one)


def no_scratch_is_left(one: Service) -> bool:
    """True if the state of measurements is deleted."""

    async def read(store: Any) -> bool:
        found = await store.redis.keys("{scratch.*")
        # The ranker's catch-up has a copy of its own until it ends.
        return all(key.startswith(b"{scratch.catch-up.") for key in found)

    return one.stack.stored(read)


@pytest.mark.slow
def test_too_few_users_have_amazons_reason(jobs_service: Service) -> None:
    """A version of a group with few users fails with Amazon's text; the best recipe is noted."""
    one, personalize = jobs_service, jobs_service.personalize
    group = personalize.create_dataset_group(name="few")["datasetGroupArn"]
    dataset = one.dataset(group, "INTERACTIONS", schema_text(*INTERACTIONS))
    rows = ratings(n_users=20)
    one.imported("few", dataset, one.put("data", "few.csv", csv_text(INTERACTIONS, trimmed(rows))))
    solution = personalize.create_solution(name="few", datasetGroupArn=group, performAutoML=True)[
        "solutionArn"
    ]
    failed = one.version(solution)
    assert (failed["status"], failed["failureReason"]) == (
        "CREATE FAILED",
        "Dataset has fewer than 25 users with at least 2 interactions each.",
    )
    rows = ratings(n_users=40)
    one.imported(
        "more", dataset, one.put("data", "more.csv", csv_text(INTERACTIONS, trimmed(rows)))
    )
    assert one.version(solution)["status"] == "ACTIVE"
    described = personalize.describe_solution(solutionArn=solution)["solution"]
    assert described["autoMLResult"]["bestRecipeArn"] in {
        recipe_arn("aws-user-personalization-v2"),
        recipe_arn("aws-popularity-count"),
    }


def trimmed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same records with required columns only."""
    return [{name: row[name] for name in INTERACTIONS} for row in rows]


@pytest.mark.slow
def test_the_batch_pipeline(jobs_service: Service) -> None:
    """Import without low ratings, version, and batch inference of 25 items after it."""
    one, personalize = jobs_service, jobs_service.personalize
    rows = [row for row in ratings() if row["EVENT_VALUE"] >= 3.5]
    group = personalize.create_dataset_group(name="pipeline")["datasetGroupArn"]
    dataset = one.dataset(group, "INTERACTIONS", schema_text(*INTERACTIONS))
    users = [f"u{n}" for n in range(60)]
    lines = [json.dumps({"userId": user}) for user in users]
    lines.insert(1, '{"itemId": 5}')
    one.put("data", "pipeline/users/users.json", "\n".join(lines) + "\n")
    where = one.put("data", "pipeline/r.csv", csv_text(INTERACTIONS, trimmed(rows)))
    # The three steps of the state machine; low ratings leave fewer than Amazon asks for.
    more = [row | {"TIMESTAMP": row["TIMESTAMP"] + 10**6} for row in trimmed(rows)]
    one.put("data", "pipeline/r.csv", csv_text(INTERACTIONS, [*trimmed(rows), *more]))
    assert one.imported("pipeline", dataset, where)["status"] == "ACTIVE"
    solution = personalize.create_solution(
        name="pipeline", datasetGroupArn=group, recipeArn=recipe_arn("aws-user-personalization")
    )["solutionArn"]
    version = personalize.create_solution_version(solutionArn=solution)["solutionVersionArn"]
    waited = 0
    while True:
        try:
            job = personalize.create_batch_inference_job(
                jobName="pipeline",
                solutionVersionArn=version,
                jobInput={"s3DataSource": {"path": "s3://data/pipeline/users/users.json"}},
                jobOutput={"s3DataDestination": {"path": "s3://results/pipeline/"}},
                roleArn=ROLE,
            )["batchInferenceJobArn"]
            break
        except personalize.exceptions.ResourceInUseException:
            waited += 1
            time.sleep(0.05)
    ended = one.wait_for_end(
        lambda: dict(
            personalize.describe_batch_inference_job(batchInferenceJobArn=job)["batchInferenceJob"]
        )
    )
    answers = one.lines("results", "pipeline/users.json.out")

    assert waited > 0
    assert ended["status"] == "ACTIVE"
    assert ended["failureReason"].startswith("1 of 61 lines have no answer")
    bad = answers.pop(1)
    assert (bad["input"], bad["output"]) == ({"itemId": 5}, None)
    assert bad["error"] == "userId is missing"
    assert [answer["input"]["userId"] for answer in answers] == users
    assert {len(answer["output"]["recommendedItems"]) for answer in answers} == {25}
    assert {len(answer["output"]["scores"]) for answer in answers} == {25}
    assert {answer["error"] for answer in answers} == {None}


def test_actions_out_of_files(jobs_service: Service) -> None:
    """Actions and interactions with them are imported, learned from, recommended and exported."""
    one, personalize = jobs_service, jobs_service.personalize
    group = personalize.create_dataset_group(name="nba")["datasetGroupArn"]
    rows = trimmed(ratings())
    actions = [{"ACTION_ID": name, "VALUE": 5} for name in ("join", "app", "rare")]
    answers = [
        {
            "USER_ID": f"u{user}",
            "ACTION_ID": action,
            "EVENT_TYPE": "Taken" if user % 10 < likely else "Not Taken",
            "TIMESTAMP": START_S + 60 * user + turn,
        }
        for user in range(60)
        for action, likely in (("join", 8), ("app", 2))
        for turn in range(5)
    ]
    answers.append({**answers[0], "ACTION_ID": "rare", "EVENT_TYPE": "VIEWED"})
    bad = {**answers[0], "EVENT_TYPE": "click"}
    texts = {
        "INTERACTIONS": (INTERACTIONS, rows),
        "ACTIONS": (["ACTION_ID", "VALUE:null|long"], actions),
        "ACTION_INTERACTIONS": (["USER_ID", "ACTION_ID", "EVENT_TYPE", "TIMESTAMP"],
                                [*answers, bad]),
    }  # fmt: skip
    datasets = {}
    for kind, (columns, listed) in texts.items():
        datasets[kind] = one.dataset(group, kind, schema_text(*columns))
        names = [column.partition(":")[0] for column in columns]
        where = one.put("data", f"nba/{kind}.csv", csv_text(names, listed))
        job = one.imported(f"nba-{kind}", datasets[kind], where)
        assert job["status"] == "ACTIVE", job
        assert job.get("failureReason", "").startswith("1 of") == (kind == "ACTION_INTERACTIONS")
    solution = personalize.create_solution(
        name="nba", datasetGroupArn=group, recipeArn=recipe_arn("aws-next-best-action")
    )["solutionArn"]
    version = one.version(solution)
    assert (version["status"], version.get("failureReason")) == ("ACTIVE", None)
    campaign = personalize.create_campaign(
        name="nba", solutionVersionArn=version["solutionVersionArn"]
    )["campaignArn"]

    listed = one.runtime.get_action_recommendations(campaignArn=campaign, userId="new")[
        "actionList"
    ]
    assert [each["actionId"] for each in listed] == ["join", "app", "rare"]
    join, app, rare = (each["score"] for each in listed)
    assert join > 0.6
    assert 0.0 < app < 0.4
    assert rare == 0.0

    exported = personalize.create_dataset_export_job(
        jobName="nba",
        datasetArn=datasets["ACTION_INTERACTIONS"],
        roleArn=ROLE,
        ingestionMode="ALL",
        jobOutput={"s3DataDestination": {"path": "s3://results/nba/"}},
    )["datasetExportJobArn"]
    one.wait_for_end(
        lambda: dict(
            personalize.describe_dataset_export_job(datasetExportJobArn=exported)[
                "datasetExportJob"
            ]
        )
    )
    body = one.s3.get_object(Bucket="results", Key="nba/nba/action_interactions.csv")["Body"]
    header, *written = body.read().decode().splitlines()
    assert header == "USER_ID,ACTION_ID,EVENT_TYPE,TIMESTAMP"
    assert len(written) == len(answers)
    assert f"u0,join,TAKEN,{START_S}" in written


def test_segments_exports_and_deletions(jobs_service: Service) -> None:
    """Users of an item, interactions as CSV, erased users, and a deleted group."""
    one, personalize = jobs_service, jobs_service.personalize
    group = personalize.create_dataset_group(name="segments")["datasetGroupArn"]
    dataset = one.dataset(group, "INTERACTIONS", schema_text(*INTERACTIONS))
    rows = trimmed(ratings())
    one.imported("segments", dataset, one.put("data", "s.csv", csv_text(INTERACTIONS, rows)))
    solution = personalize.create_solution(
        name="segments", datasetGroupArn=group, recipeArn=recipe_arn("aws-item-affinity")
    )["solutionArn"]
    version = one.version(solution)
    one.put("data", "segments/items.json", '{"itemId": "m1"}\n')
    segments = personalize.create_batch_segment_job(
        jobName="segments",
        solutionVersionArn=version["solutionVersionArn"],
        numResults=5,
        jobInput={"s3DataSource": {"path": "s3://data/segments/"}},
        jobOutput={"s3DataDestination": {"path": "s3://results/segments/"}},
        roleArn=ROLE,
    )["batchSegmentJobArn"]
    exported = personalize.create_dataset_export_job(
        jobName="exported",
        datasetArn=dataset,
        roleArn=ROLE,
        ingestionMode="BULK",
        jobOutput={"s3DataDestination": {"path": "s3://results/export/"}},
    )["datasetExportJobArn"]
    one.put("data", "gone.csv", "USER_ID\nu1\nu2\nnobody\n")
    one.wait_for_end(
        lambda: dict(
            personalize.describe_batch_segment_job(batchSegmentJobArn=segments)["batchSegmentJob"]
        )
    )
    one.wait_for_end(
        lambda: dict(
            personalize.describe_dataset_export_job(datasetExportJobArn=exported)[
                "datasetExportJob"
            ]
        )
    )
    deletion = personalize.create_data_deletion_job(
        jobName="gone",
        datasetGroupArn=group,
        dataSource={"dataLocation": "s3://data/gone.csv"},
        roleArn=ROLE,
    )["dataDeletionJobArn"]
    deleted = one.wait_for_end(
        lambda: dict(
            personalize.describe_data_deletion_job(dataDeletionJobArn=deletion)["dataDeletionJob"]
        )
    )
    (answer,) = one.lines("results", "segments/items.json.out")
    takers = {row["USER_ID"] for row in rows if row["ITEM_ID"] == "m1"}
    body = one.s3.get_object(Bucket="results", Key="export/exported/interactions.csv")["Body"]
    written = body.read().decode().splitlines()

    assert answer["input"] == {"itemId": "m1"}
    assert len(answer["output"]["recommendedUsers"]) == 5
    assert set(answer["output"]["recommendedUsers"]) <= takers
    assert sorted(written[1:]) == sorted(
        f"{row['USER_ID']},{row['ITEM_ID']},{row['TIMESTAMP']}" for row in rows
    )
    assert (deleted["status"], deleted["numDeleted"]) == ("COMPLETED", 2)

    for delete, arns in (
        (personalize.delete_solution, {"solutionArn": solution}),
        (personalize.delete_dataset, {"datasetArn": dataset}),
        (personalize.delete_dataset_group, {"datasetGroupArn": group}),
    ):
        delete(**arns)

    def is_gone() -> bool:
        listed = personalize.list_dataset_groups()["datasetGroups"]
        return "segments" not in {each["name"] for each in listed}

    one.stack.wait(is_gone, "the group is gone")
    assert one.counts("segments") == {}

"""The calls of AWS's Retail Demo Store, in the order of its deployment, of its pages and its end.

Its Lambda is called again and again: each time it looks for what there is by paginators, creates
what is missing, and goes on once everything is ACTIVE.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.personalize.calls_fixtures import client
from tests.personalize.control_fixtures import ROLE, recipe_arn
from tests.personalize.jobs_fixtures import PATIENCE_S, START_S, Service, csv_text
from tests.servers import wait_until

AISLES = ("furniture", "apparel", "food service", "salty snacks")
CSTORE = '("cold dispensed", "hot dispensed", "salty snacks", "food service")'
BOUGHT = 'EXCLUDE ItemID WHERE INTERACTIONS.event_type IN ("Purchase")'
FILTERS = {
    "purchased": BOUGHT,
    "cstore": f"EXCLUDE ItemID WHERE ITEMS.CATEGORY_L1 NOT IN {CSTORE}",
    "purchased-cstore": f"{BOUGHT} | EXCLUDE ItemID WHERE ITEMS.CATEGORY_L1 IN {CSTORE}",
    "categories": f"{BOUGHT} | INCLUDE ItemID WHERE ITEMS.CATEGORY_L1 IN ($CATEGORIES)",
    "promoted": f'{BOUGHT} | INCLUDE ItemID WHERE ITEMS.PROMOTED IN ("Y")',
    "promoted-no-cstore": f'{BOUGHT} | INCLUDE ItemID WHERE ITEMS.PROMOTED IN ("Y")'
    f" AND ITEMS.CATEGORY_L1 NOT IN {CSTORE}",
}
RECOMMENDERS = {
    "for-you": "aws-ecomm-recommended-for-you",
    "popular": "aws-ecomm-popular-items-by-views",
}
SOLUTIONS = {
    "related": ("aws-similar-items", "View"),
    "ranking": ("aws-personalized-ranking", "View"),
    "affinity": ("aws-item-attribute-affinity", None),
    "pinpoint": ("aws-user-personalization", "View"),
}


def field(name: str, kind: str = "string", **more: bool) -> dict[str, Any]:
    """A field of a schema."""
    return {"name": name, "type": kind, **more}


def category(name: str) -> dict[str, Any]:
    """A categorical field of a schema."""
    return field(name, categorical=True)


FIELDS = {
    "Interactions": [
        *map(field, ("ITEM_ID", "USER_ID", "EVENT_TYPE")),
        field("TIMESTAMP", "long"),
        category("DISCOUNT"),
    ],
    "Items": [
        field("ITEM_ID"),
        field("PRICE", "float"),
        category("CATEGORY_L1"),
        category("CATEGORY_L2"),
        field("PRODUCT_DESCRIPTION", textual=True),
        category("GENDER"),
        field("PROMOTED"),
    ],
    "Users": [field("USER_ID"), field("AGE", "int"), category("GENDER")],
}


def files() -> dict[str, list[dict[str, Any]]]:
    """Rows of the shop, by type of dataset."""
    items = [
        {
            "ITEM_ID": f"p{n}",
            "PRICE": 1.5 * n,
            "CATEGORY_L1": AISLES[n % 4],
            "CATEGORY_L2": f"shelf {n % 8}",
            "PRODUCT_DESCRIPTION": f"A fine {AISLES[n % 4]} thing, number {n}",
            "GENDER": "Any",
            "PROMOTED": "Y" if n % 5 == 0 else "N",
        }
        for n in range(100)
    ]
    interactions = [
        {
            "ITEM_ID": f"p{(4 * ((user + 3 * turn) % 25) + user % 4) % 100}",
            "USER_ID": str(user),
            "EVENT_TYPE": "Purchase" if turn % 10 == 9 else "View",
            "TIMESTAMP": START_S + 100 * turn + user,
            "DISCOUNT": "Yes" if turn % 2 else "No",
        }
        for turn in range(25)
        for user in range(50)
    ]
    users = [{"USER_ID": str(n), "AGE": 20 + n, "GENDER": "FM"[n % 2]} for n in range(50)]
    return {"Interactions": interactions, "Items": items, "Users": users}


class Deployment:
    """The Lambda's calls; `update` is one of its invocations."""

    def __init__(self, one: Service) -> None:
        self.personalize = one.personalize
        self.arns: dict[str, str] = {}
        self._waiting: list[str] = []

    def update(self) -> bool:
        """Create what is missing; True once all of it is ACTIVE."""
        self._waiting.clear()
        for kind, fields in FIELDS.items():
            schema = {
                "type": "record",
                "name": kind,
                "namespace": "com.amazonaws.personalize.schema",
                "fields": fields,
                "version": "1.0",
            }
            self._made(f"schema-{kind}", "schema", schema=json.dumps(schema), domain="ECOMMERCE")
        group = self._made("group", "dataset_group", domain="ECOMMERCE")
        if self._waiting:
            return False
        for kind in FIELDS:
            schema_arn = self.arns[f"schema-{kind}"]
            of_type = {"datasetType": kind.upper(), "schemaArn": schema_arn}
            self._made(kind, "dataset", {"datasetGroupArn": group}, **of_type)
        if self._waiting:
            return False
        for kind in FIELDS:
            place = {"dataLocation": f"s3://data/store/{kind}.csv"}
            within = {"datasetArn": self.arns[kind]}
            self._made(
                f"import-{kind}", "dataset_import_job", within, dataSource=place, roleArn=ROLE
            )
        if self._waiting:
            return False
        for name, recipe in RECOMMENDERS.items():
            recipe_of = {"recipeArn": recipe_arn(recipe)}
            self._made(name, "recommender", {"datasetGroupArn": group}, **recipe_of)
        for name, (recipe, event_type) in SOLUTIONS.items():
            self._solution(group, name, recipe, event_type)
        self._made("tracker", "event_tracker", {"datasetGroupArn": group})
        for name, expression in FILTERS.items():
            self._made(name, "filter", {"datasetGroupArn": group}, filterExpression=expression)
        return not self._waiting

    def _solution(self, group: str, name: str, recipe: str, event_type: str | None) -> None:
        chosen = {"eventType": event_type} if event_type else {}
        within, recipe_of = {"datasetGroupArn": group}, {"recipeArn": recipe_arn(recipe)}
        solution = self._made(f"solution-{name}", "solution", within, **recipe_of, **chosen)
        pages = self.personalize.get_paginator("list_solution_versions")
        versions = [
            each
            for page in pages.paginate(solutionArn=solution)
            for each in page["solutionVersions"]
        ]
        if not versions:
            self.personalize.create_solution_version(solutionArn=solution, trainingMode="FULL")
            self._waiting.append(name)
        elif versions[0]["status"] != "ACTIVE":
            assert versions[0]["status"] in {"CREATE PENDING", "CREATE IN_PROGRESS"}, versions
            self._waiting.append(name)
        elif event_type:
            arn = versions[0]["solutionVersionArn"]
            self.arns[f"version-{name}"] = arn
            self._made(
                f"campaign-{name}", "campaign", {"solutionArn": solution}, solutionVersionArn=arn
            )

    def _made(self, name: str, noun: str, within: dict[str, str] | None = None, **more: Any) -> str:
        """The ARN of a resource, which is created if a paginator does not find it."""
        noun_of_member = noun.title().replace("_", "")
        member = noun_of_member[0].lower() + noun_of_member[1:]
        named = "jobName" if noun.endswith("_job") else "name"
        operation, called = f"list_{noun}s", f"store-{name}"
        for page in self.personalize.get_paginator(operation).paginate(**within or {}):
            # The answer of ListFilters is the one with a capital letter.
            for each in page["Filters" if noun == "filter" else f"{member}s"]:
                if each[named] == called:
                    self._waiting += [name] * (each.get("status", "ACTIVE") != "ACTIVE")
                    self.arns[name] = each[f"{member}Arn"]
                    return self.arns[name]
        parents = {} if noun == "campaign" else within or {}
        created = getattr(self.personalize, f"create_{noun}")(**{named: called}, **parents, **more)
        self._waiting += [name] * (noun != "schema")
        self.arns[name] = created[f"{member}Arn"]
        self.arns |= {"trackingId": created["trackingId"]} if noun == "event_tracker" else {}
        return self.arns[name]

    def delete(self) -> None:
        """Delete everything, as its clean-up does: each kind, until none of it can be described."""
        recommenders = [*RECOMMENDERS]
        self._gone("recommender", recommenders)
        self._gone("campaign", [name for name in self.arns if name.startswith("campaign-")])
        self._gone("solution", [f"solution-{name}" for name in SOLUTIONS])
        self._gone("event_tracker", ["tracker"])
        self._gone("filter", [*FILTERS])
        self._gone("dataset", [*FIELDS])
        self._gone("schema", [f"schema-{kind}" for kind in FIELDS])
        self._gone("dataset_group", ["group"])

    def _gone(self, noun: str, names: list[str]) -> None:
        noun_of_member = noun.title().replace("_", "")
        member = f"{noun_of_member[0].lower()}{noun_of_member[1:]}Arn"
        for name in names:
            arn = {member: self.arns[name]}
            getattr(self.personalize, f"delete_{noun}")(**arn)
            describe = getattr(self.personalize, f"describe_{noun}")
            wait_until(partial(is_gone, describe, arn), within_s=PATIENCE_S, what="it is gone")


def is_gone(describe: Callable[..., Any], arn: dict[str, str]) -> bool:
    """Whether a resource cannot be described any more."""
    try:
        describe(**arn)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        return True
    return False


@pytest.mark.slow
def test_the_retail_demo_store_is_deployed_used_and_deleted(jobs_service: Service) -> None:
    """Deployment, pages with filters and promotions, themes, segments, live events, and the end."""
    one, shop = jobs_service, Deployment(jobs_service)
    for kind, rows in files().items():
        one.put("data", f"store/{kind}.csv", csv_text(list(rows[0]), rows))
    wait_until(shop.update, within_s=PATIENCE_S, what="all resources are ready")
    arns, runtime = shop.arns, one.runtime
    events = client("personalize-events", one.personalize.meta.endpoint_url)

    def shown(**request: Any) -> list[dict[str, Any]]:
        return list(runtime.get_recommendations(userId="5", numResults=10, **request)["itemList"])

    promoted = {"name": "promoted", "percentPromotedItems": 25, "filterArn": arns["promoted"]}
    listed = shown(
        recommenderArn=arns["for-you"], filterArn=arns["purchased"], promotions=[promoted]
    )
    bought = {
        row["ITEM_ID"]
        for row in files()["Interactions"]
        if (row["USER_ID"], row["EVENT_TYPE"]) == ("5", "Purchase")
    }
    assert len(listed) == 10
    assert bought.isdisjoint(each["itemId"] for each in listed)
    by_promotion = [each["itemId"] for each in listed if each.get("promotionName") == "promoted"]
    assert len(by_promotion) == 3
    assert all(int(name[1:]) % 5 == 0 for name in by_promotion)
    apparel = shown(
        recommenderArn=arns["popular"],
        filterArn=arns["categories"],
        filterValues={"CATEGORIES": '"apparel"'},
    )
    assert {int(each["itemId"][1:]) % 4 for each in apparel} == {1}
    convenience = shown(recommenderArn=arns["popular"], filterArn=arns["cstore"])
    assert {int(each["itemId"][1:]) % 4 for each in convenience} <= {2, 3}
    related = runtime.get_recommendations(
        campaignArn=arns["campaign-related"], itemId="p5", filterArn=arns["purchased-cstore"],
        userId="5", numResults=6,
    )["itemList"]  # fmt: skip
    assert related
    assert {int(each["itemId"][1:]) % 4 for each in related} <= {0, 1}
    ranked = runtime.get_personalized_ranking(
        campaignArn=arns["campaign-ranking"],
        userId="5",
        inputList=[f"p{n}" for n in range(20)],
        context={"DISCOUNT": "Yes"},
    )["personalizedRanking"]
    assert len(ranked) == 20

    new = next(each["itemId"] for each in listed if each["itemId"] not in by_promotion)
    events.put_events(
        trackingId=arns["trackingId"],
        userId="5",
        sessionId="page",
        eventList=[
            {
                "eventType": "Purchase",
                "sentAt": int(time.time()),
                "properties": json.dumps({"itemId": new, "discount": "No"}),
            }
        ],
    )
    wait_until(
        lambda: (
            new
            not in {
                each["itemId"]
                for each in shown(recommenderArn=arns["for-you"], filterArn=arns["purchased"])
            }
        ),
        within_s=PATIENCE_S,
        what="what was bought is excluded",
    )

    one.put("data", "store/themes.json", '{"itemId": "p4"}\n{"itemId": "p5"}\n')
    theme = one.personalize.create_batch_inference_job(
        jobName="store-themes",
        solutionVersionArn=arns["version-related"],
        roleArn=ROLE,
        numResults=6,
        batchInferenceJobMode="THEME_GENERATION",
        themeGenerationConfig={"fieldsForThemeGeneration": {"itemName": "PRODUCT_DESCRIPTION"}},
        jobInput={"s3DataSource": {"path": "s3://data/store/themes.json"}},
        jobOutput={"s3DataDestination": {"path": "s3://results/store/"}},
    )["batchInferenceJobArn"]
    ended = one.wait_for_end(
        lambda: dict(
            one.personalize.describe_batch_inference_job(batchInferenceJobArn=theme)[
                "batchInferenceJob"
            ]
        )
    )
    assert (ended["status"], ended.get("failureReason")) == ("ACTIVE", None)
    for line in one.lines("results", "store/themes.json.out"):
        assert line["output"]["theme"]
        assert len(line["output"]["recommendedItems"]) == 6

    shop.delete()

"""Every member of every input has an effect that a test shows, or is refused by name."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from api.personalize.operations import OPERATIONS
from api.personalize.refused_members import DESCRIBED, REFUSED
from api.personalize.service_model import service_operations
from models.errors import InvalidInput, ResourceNotFound
from models.personalize.resources.resource_types import KINDS
from tests.personalize.calls_fixtures import Caller
from tests.personalize.control_fixtures import INTERACTIONS, ROLE, Control, recipe_arn
from tests.personalize.input_members import EFFECTS, effect_of, input_members
from tests.personalize.resource_fixtures import ARN, Documents

MEMBERS = [*input_members()]
PLACE = {"dataLocation": "s3://bucket/rows.csv"}
JOB = {
    "roleArn": ROLE,
    "jobInput": {"s3DataSource": {"path": "s3://bucket/in.json"}},
    "jobOutput": {"s3DataDestination": {"path": "s3://bucket/out/"}},
}
VALID = {
    "kmsKeyArn": "arn:aws:kms:us-east-1:000000000000:key/k",
    "roleArn": ROLE,
    "eventValueThreshold": "1",
    "metricRegex": "x",
}
METRICS = {
    "metrics": [{"metricName": "m", "eventType": "click", "expression": "SAMPLECOUNT()"}],
    "metricsOutputConfig": {"roleArn": ROLE},
}


def test_every_member_has_an_effect_or_is_refused() -> None:
    """No member of an input is accepted without a test of its effect, or a table that says why."""
    accepted = {
        member
        for member in MEMBERS
        if member.partition(".")[0] in OPERATIONS and member not in {*REFUSED, *DESCRIBED}
    }

    assert {member for member in accepted if effect_of(member) is None} == set()
    assert {*REFUSED, *DESCRIBED} <= {*MEMBERS}
    assert REFUSED.keys().isdisjoint(DESCRIBED)
    assert {effect_of(member) for member in accepted} == {*EFFECTS.values()}


def test_the_tests_of_effects_exist() -> None:
    """Every module and function that shows an effect is there."""
    folder, known = Path(__file__).parent, set[str]()
    for module in {test.partition(".")[0] for test in EFFECTS.values()}:
        (path,) = folder.rglob(f"{module}.py")
        tree = ast.parse(path.read_text())
        known |= {
            f"{module}.{one.name}"
            for one in tree.body
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
        }

    assert {*EFFECTS.values()} <= known


@pytest.mark.parametrize("member", REFUSED)
def test_refused_members_are_named(member: str) -> None:
    """A request that fits the shape with the member is invalid input, which names it."""
    operation, _, path = member.partition(".")
    document = Documents(operation, 0).valid()
    place, *names = document, *path.split(".")
    for name in names[:-1]:
        needed = {
            "s3DataDestination": {"path": "s3://b/k"},
            "metricsOutputConfig": {"roleArn": ROLE},
        }
        inner: dict[str, Any] = needed.get(name, {})
        if name.endswith("[]"):
            place[name.removesuffix("[]")] = [inner]
            place = inner
        else:
            place = place.setdefault(name, inner)
    is_number = names[-1] == "eventValueThreshold" and "[]" in path
    place[names[-1]] = 1.0 if is_number else VALID[names[-1]]

    with pytest.raises(
        InvalidInput, match=f"^{re.escape(path)} is not supported by streaming-recommender: "
    ):
        service_operations()[operation].validate_input(document)


def test_a_refusal_has_amazons_form(url: str) -> None:
    """InvalidInputException with status 400, in header and body."""
    with Caller(url) as caller:
        answer = caller.call(
            "CreateDatasetGroup", {"name": "k", "kmsKeyArn": "arn:aws:kms:a:000000000000:key/k"}
        )

    assert (answer.status, answer.code) == (400, "InvalidInputException")
    assert answer.message.startswith("kmsKeyArn is not supported")


@pytest.mark.parametrize(
    "operation", [name for name in OPERATIONS if name.startswith(("Describe", "Delete"))]
)
async def test_an_arn_names_the_resource(control: Control, operation: str) -> None:
    """An ARN of the right type that nothing has is not found."""
    noun = operation.removeprefix("Describe").removeprefix("Delete")
    kind = next((kind for kind in KINDS.values() if kind.noun == noun), None)
    paths = {"Recipe": "recipe/x", "Algorithm": "algorithm/x"}
    path = paths.get(noun, "feature-transformation/x")
    if kind is not None:
        path = "/".join([kind.name.replace("-version", ""), *"xy"][: kind.parts])

    with pytest.raises(ResourceNotFound):
        await control(operation, **{f"{noun[0].lower()}{noun[1:]}Arn": f"{ARN}{path}"})


class World(NamedTuple):
    """One resource of every type, named `one` and tagged; and parents that have none of them."""

    arns: dict[str, str]
    others: dict[str, str]


async def world(control: Control) -> World:
    """Create it."""
    domain, other = await control.group("shops", domain="ECOMMERCE"), await control.group("other")
    custom = await control.group("custom")
    dataset = await control.dataset(custom, *INTERACTIONS)
    more = {"tags": [{"tagKey": "team", "tagValue": "one"}]}
    solution = await control.solution(custom, "one", "aws-similar-items", **more)
    segmenting = await control.solution(custom, "two", "aws-item-affinity")
    version = await control.version(solution)
    segments = await control.version(segmenting)
    others = {
        "datasetGroupArn": other,
        "datasetArn": await control.dataset(other, *INTERACTIONS),
        "solutionArn": await control.solution(other, "other"),
    }
    others["solutionVersionArn"] = await control.version(others["solutionArn"])
    made: dict[str, dict[str, Any]] = {
        "EventTracker": {"datasetGroupArn": custom},
        "Filter": {
            "datasetGroupArn": custom,
            "filterExpression": 'EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("a")',
        },
        "Recommender": {
            "datasetGroupArn": domain,
            "recipeArn": recipe_arn("aws-ecomm-recommended-for-you"),
        },
        "Campaign": {"solutionVersionArn": version},
        "DatasetImportJob": {"datasetArn": dataset, "dataSource": PLACE, "roleArn": ROLE},
        "DatasetExportJob": {"datasetArn": dataset, "roleArn": ROLE, "jobOutput": JOB["jobOutput"]},
        "DataDeletionJob": {"datasetGroupArn": custom, "dataSource": PLACE, "roleArn": ROLE},
        "BatchInferenceJob": {"solutionVersionArn": version, **JOB},
        "BatchSegmentJob": {"solutionVersionArn": segments, **JOB},
        "MetricAttribution": {"datasetGroupArn": custom, **METRICS},
    }
    arns = {"Dataset": dataset, "Solution": solution, "SolutionVersion": version}
    for noun, request in made.items():
        shape = service_operations()[f"Create{noun}"].model.input_shape
        assert shape is not None
        name = {"jobName" if "jobName" in shape.members else "name": "one"}
        tags = more if "tags" in shape.members else {}
        answer = await control(f"Create{noun}", **name, **request, **tags)
        arns[noun] = answer[f"{noun[0].lower()}{noun[1:]}Arn"]
        if noun == "Recommender":
            await control.measured(arns[noun])
    return World(arns, others)


async def test_a_list_is_of_the_named_parent(control: Control) -> None:
    """A resource is in the lists of its parents, and in those of no other."""
    made = await world(control)
    parents = {"datasetArn": "Dataset", "solutionArn": "Solution"}
    for noun, arn in made.arns.items():
        operation = f"List{noun}s"
        shape = service_operations()[operation].model.input_shape
        assert shape is not None
        (member,) = [name for name in shape.members if name.endswith("Arn")]
        described = await control(f"Describe{noun}", **{f"{noun[0].lower()}{noun[1:]}Arn": arn})
        ((_, shown),) = described.items()
        parent = shown.get(member) or made.arns[parents[member]]
        own, others = [
            next(iter((await control(operation, **{member: one})).values()))
            for one in (parent, made.others[member])
        ]
        assert arn in str(own), operation
        assert arn not in str(others), operation


async def test_names_and_tags_are_the_resources_own(control: Control) -> None:
    """Every resource is described by the name, and has the tags, that it was created with."""
    made = await world(control)
    for noun, arn in made.arns.items():
        ((_, shown),) = (
            await control(f"Describe{noun}", **{f"{noun[0].lower()}{noun[1:]}Arn": arn})
        ).items()
        if noun not in {"Dataset", "SolutionVersion"}:
            assert (shown.get("jobName") or shown["name"]) == "one"
            if noun != "MetricAttribution":
                listed = await control("ListTagsForResource", resourceArn=arn)
                assert listed["tags"] == [{"tagKey": "team", "tagValue": "one"}]

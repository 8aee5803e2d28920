"""Filters: named expressions of a dataset group."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from models.errors import InvalidInput, LimitExceeded, ResourceAlreadyExists, ResourceNotFound
from tests.personalize.control_fixtures import NOW, ROLE, Control

BOUGHT = 'EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("Purchase")'


async def filter_of(control: Control, group: str, name: str = "f", text: str = BOUGHT) -> str:
    """The ARN of a new filter."""
    answer = await control("CreateFilter", name=name, datasetGroupArn=group, filterExpression=text)
    return str(answer["filterArn"])


async def test_a_filter_is_described_unchanged(control: Control) -> None:
    """It is ACTIVE at once, in any allowed spelling, and gone after its deletion."""
    group = await control.group()
    text = f" {BOUGHT.lower()} | include itemid where ITEMS.price < $P"
    arn = await filter_of(control, group, text=text)

    assert (await control("DescribeFilter", filterArn=arn))["filter"] == {
        "name": "f",
        "filterArn": control.arn("filter/f"),
        "datasetGroupArn": group,
        "filterExpression": text,
        "status": "ACTIVE",
        "creationDateTime": NOW + 2,
        "lastUpdatedDateTime": NOW + 2,
    }
    (listed,) = (await control("ListFilters", datasetGroupArn=group))["Filters"]
    assert (listed["filterArn"], listed["datasetGroupArn"]) == (arn, group)
    with pytest.raises(ResourceAlreadyExists):
        await filter_of(control, group)
    await control("DeleteFilter", filterArn=arn)
    with pytest.raises(ResourceNotFound):
        await control("DescribeFilter", filterArn=arn)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("EXCLUDE ItemID WHERE", "filterExpression, line 1, column 21"),
        ('EXCLUDE ItemID WHERE Items.A IN ("x") IF Items.B = 1', "line 1, column"),
        ('EXCLUDE ActionID WHERE Items.A IN ("x")', "expected Actions or Action_Interactions"),
    ],
)
async def test_invalid_expressions_say_where(control: Control, text: str, message: str) -> None:
    """The error points into the expression."""
    group = await control.group()
    with pytest.raises(InvalidInput, match=message):
        await filter_of(control, group, text=text)


async def test_filters_have_quotas(make_control: Callable[..., Control]) -> None:
    """Quotas bound the filters of a group, and the distinct fields that they read."""
    control = make_control(personalize_quotas={"filters": 2, "filter-fields": 2})
    group, other = await control.group("a"), await control.group("b")
    await filter_of(control, group, "f1", 'INCLUDE ItemID WHERE Items.X IN ("1")')
    two = 'INCLUDE ItemID WHERE Items.Y IN ("1") AND Items.Z IN ("1")'
    with pytest.raises(LimitExceeded, match="would read 3 fields; the quota is 2"):
        await filter_of(control, group, "f2", two)
    await filter_of(control, other, "f2", two)
    await filter_of(control, group, "f3", 'EXCLUDE ItemID WHERE Items.x IN ("2")')
    with pytest.raises(LimitExceeded, match="there may be 2 filters"):
        await filter_of(control, group, "f4", 'EXCLUDE ItemID WHERE Items.x IN ("3")')


async def test_a_batch_job_takes_a_filter_of_its_group(control: Control) -> None:
    """A filter of another group is refused; filters are deleted with their group."""
    group, other = await control.group("a"), await control.group("b")
    version = await control.version(await control.solution(group))
    mine = await filter_of(control, group, "mine")
    theirs = await filter_of(control, other, "theirs")
    request = {
        "solutionVersionArn": version,
        "jobInput": {"s3DataSource": {"path": "s3://bucket/in.json"}},
        "jobOutput": {"s3DataDestination": {"path": "s3://bucket/out/"}},
        "roleArn": ROLE,
    }
    with pytest.raises(InvalidInput, match="of another dataset group"):
        await control("CreateBatchInferenceJob", jobName="j", filterArn=theirs, **request)
    created = await control("CreateBatchInferenceJob", jobName="j", filterArn=mine, **request)
    shown = await control(
        "DescribeBatchInferenceJob", batchInferenceJobArn=created["batchInferenceJobArn"]
    )
    assert shown["batchInferenceJob"]["filterArn"] == mine
    await control("DeleteDatasetGroup", datasetGroupArn=other)
    await control.jobs.succeed(await control.claim_next(), now_s=control.now_s)
    await control.jobs.remove(await control.claim_next())
    with pytest.raises(ResourceNotFound):
        await control("DescribeFilter", filterArn=theirs)

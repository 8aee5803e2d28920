"""Reports of metric attributions: what is counted, by which source, in which file, and once."""

from __future__ import annotations

import asyncio
import csv
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from models.events import Event, MetricAttribution
from models.personalize.metric_reports import (
    MAX_SOURCES,
    UNDEFINED,
    WINDOW_S,
    AttributedMetric,
    MetricReport,
    source_of,
)
from models.personalize.resources.registry import Registry
from models.settings import Settings
from models.state.clients.client import connect
from models.state.tenants import Tenants
from streams.jobs.metric_reports import SETTLE_S, publish_due_reports
from streams.object_store import Objects
from tests.personalize.calls_fixtures import client
from tests.personalize.control_fixtures import INTERACTIONS, ROLE, schema_text
from tests.personalize.jobs_fixtures import START_S, Service, csv_text

ITEMS: dict[str, dict[str, Any]] = {
    "tent": {"PRICE": 200.0},
    "lamp": {"PRICE": 9.5},
    "rope": {"TITLE": "Rope"},
}
METRICS = [
    {"metricName": "clicks", "eventType": "click", "expression": "SAMPLECOUNT()"},
    {"metricName": "revenue", "eventType": "purchase", "expression": "SUM(Items.PRICE)"},
    {"metricName": "paid", "eventType": "purchase", "expression": "SUM(Interactions.EVENT_VALUE)"},
]

Row = tuple[str, str, float]
"""Metric, source and value of a line of a report, over all windows."""


def rows(text: str) -> set[Row]:
    """What a report says, without times."""
    totals: dict[tuple[str, str], float] = {}
    for line in csv.DictReader(text.splitlines()):
        place = (line["METRIC_NAME"], line["EVENT_ATTRIBUTION_SOURCE"])
        totals[place] = totals.get(place, 0.0) + float(line["VALUE"])
        assert int(line["TIMESTAMP"]) % WINDOW_S == 0
    return {(*place, value) for place, value in totals.items()}


@pytest.mark.unit
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["click", "purchase", "view"]),
            st.sampled_from([*ITEMS, None]),
            st.sampled_from([None, "blog", "mail"]),
            st.floats(1e9, 1.00001e9),
        )
    )
)
def test_a_report_is_the_sum_over_its_events(
    events: Sequence[tuple[str, str | None, str | None, float]],
) -> None:
    """Of each metric, source and window, in whatever order they come."""
    metrics = [
        AttributedMetric("clicks", "click"),
        AttributedMetric("revenue", "purchase", "PRICE", is_of_items=True),
    ]
    expected: dict[tuple[str, str, int], float] = {}
    report, reverse = MetricReport(metrics), MetricReport(metrics)
    for kind, item, source, at_s in events:
        place = (kind, source or UNDEFINED, int(at_s // WINDOW_S) * WINDOW_S)
        price = ITEMS[item].get("PRICE", 0.0) if item else 0.0
        if kind == "click" or (kind == "purchase" and item):
            value = 1.0 if kind == "click" else float(price)
            expected[place] = expected.get(place, 0.0) + value
    for into, some in ((report, events), (reverse, events[::-1])):
        for kind, item, source, at_s in some:
            into.add(Event(kind, at_s, item_id=item), source)

    text = report.text(ITEMS)

    found = {
        (line["EVENT_TYPE"], line["EVENT_ATTRIBUTION_SOURCE"], int(line["TIMESTAMP"])): float(
            line["VALUE"]
        )
        for line in csv.DictReader(text.splitlines())
    }
    assert found == pytest.approx(expected)
    assert reverse.text(ITEMS) == text


@pytest.mark.unit
@pytest.mark.parametrize("value", [10**400, -(10**400), True, "5", None, [5]])
def test_what_is_no_number_adds_nothing(value: object) -> None:
    """Nor does it stop the report: anybody who may send events chooses their properties."""
    report = MetricReport([AttributedMetric("watched", "watch", "SECONDS")])
    for each in (value, 5):
        report.add(Event("watch", 1e9, properties={"SECONDS": each}), None)

    (line,) = csv.DictReader(report.text({}).splitlines())
    assert line["VALUE"] == "5.0"


@pytest.mark.unit
def test_sources_are_bounded() -> None:
    """Further ones count as events without a source, and none is lost."""
    report = MetricReport([AttributedMetric("clicks", "click")])
    for n in range(MAX_SOURCES + 50):
        report.add(Event("click", 1000.0), f"s{n}")

    found = rows(report.text({}))

    assert len(found) == MAX_SOURCES + 1
    assert ("clicks", UNDEFINED, 50.0) in found


@pytest.mark.unit
def test_a_named_source_comes_before_the_list() -> None:
    """As Amazon Personalize documents it; a list that is not known is no source."""
    own = MetricAttribution("blog")
    assert source_of(
        Event("c", 1.0, metric_attribution=own, recommendation_id="r"), {"r": "x"}
    ) == ("blog")
    assert source_of(Event("c", 1.0, recommendation_id="r"), {"r": "x"}) == "x"
    assert source_of(Event("c", 1.0, recommendation_id="r"), {}) is None


class Reporting:
    """A dataset group with a metric attribution, on a running service."""

    def __init__(self, service: Service, name: str, metrics: Sequence[Mapping[str, str]]) -> None:
        self.service = service
        self.name = name
        personalize = service.personalize
        self.group = str(personalize.create_dataset_group(name=name)["datasetGroupArn"])
        made = personalize.create_event_tracker(name=name, datasetGroupArn=self.group)
        self.tracking_id = made["trackingId"]
        self.attribution = personalize.create_metric_attribution(
            name=name,
            datasetGroupArn=self.group,
            metrics=metrics,
            metricsOutputConfig={
                "roleArn": ROLE,
                "s3DataDestination": {"path": f"s3://results/{name}"},
            },
        )["metricAttributionArn"]
        url = personalize.meta.endpoint_url
        self.events = client("personalize-events", url)
        self.now_s = time.time()

    def put(self, kind: str, item: str, **event: Any) -> None:
        """Send an event of now."""
        self.events.put_events(
            trackingId=self.tracking_id,
            userId=event.pop("user", "ada"),
            sessionId="s1",
            eventList=[{"eventType": kind, "itemId": item, "sentAt": time.time(), **event}],
        )

    def put_items(self) -> None:
        """Store the items' prices."""

        async def put(store: Any) -> None:
            from models.state.catalogue.metadata import put_items

            own = Settings(redis=store.settings.redis, group=self.name)
            await put_items(type(store)(store.redis, own), ITEMS.items(), time.time())

        self.service.stack.stored(put)

    def publish(self, folder: Path, *, times: int = 2) -> list[str]:
        """Look for due reports a quarter of an hour later, and again; the texts of the files."""
        written: list[str] = []
        for _ in range(times):
            self.now_s += 1000 if not written else SETTLE_S
            written += self._look(folder)
        return [Path(folder, url.removeprefix("s3://")).read_text() for url in written]

    def _look(self, folder: Path) -> list[str]:
        """What two job runners write that look at the same time: one file, though each writes."""

        async def look() -> list[str]:
            settings = self.service.stack.settings
            async with connect(settings.redis) as redis:
                return await publish_due_reports(
                    Registry(redis, settings),
                    Tenants(redis, settings),
                    Objects(str(folder)),
                    now_s=self.now_s,
                )

        async def both() -> list[str]:
            first, second = await asyncio.gather(look(), look())
            return sorted({*first, *second})

        return asyncio.run(both())


@pytest.fixture
def reporting(jobs_service: Service, tmp_path: Path) -> Iterator[Callable[..., Reporting]]:
    """Makes groups with a metric attribution, which goes after the test; and a bucket."""
    (tmp_path / "results").mkdir()
    yield lambda name, metrics=METRICS: Reporting(jobs_service, name, metrics)
    personalize = jobs_service.personalize
    for one in personalize.list_metric_attributions()["metricAttributions"]:
        personalize.delete_metric_attribution(metricAttributionArn=one["metricAttributionArn"])


def test_events_are_reported_by_their_source(
    reporting: Callable[..., Reporting], tmp_path: Path
) -> None:
    """Named, of the campaign's list, or none; each once, in one report, though sent twice."""
    one = reporting("by-source")
    one.put_items()
    one.put("click", "tent", metricAttribution={"eventAttributionSource": "blog"})
    one.put("click", "tent", eventId="again")
    one.put("click", "tent", eventId="again")
    one.put("view", "tent")
    one.put("purchase", "tent", eventValue=150.0, metricAttribution={"eventAttributionSource": "m"})
    one.put("purchase", "lamp", eventValue=9.0, metricAttribution={"eventAttributionSource": "m"})

    (text,) = one.publish(tmp_path)

    assert rows(text) == {
        ("clicks", "blog", 1.0),
        ("clicks", UNDEFINED, 1.0),
        ("revenue", "m", 209.5),
        ("paid", "m", 159.0),
    }
    one.put("click", "tent", eventId="again")
    assert one.publish(tmp_path) == [], "it counted in the span before"
    one.put("click", "rope", metricAttribution={"eventAttributionSource": "mail"})
    assert [rows(text) for text in one.publish(tmp_path)] == [{("clicks", "mail", 1.0)}]


def test_metrics_say_what_is_counted(reporting: Callable[..., Reporting], tmp_path: Path) -> None:
    """Another type, function, name or path gives another report of the same events."""
    found = {}
    for number, metric in enumerate(
        [
            {"metricName": "clicks", "eventType": "click", "expression": "SAMPLECOUNT()"},
            {"metricName": "clicks", "eventType": "view", "expression": "SAMPLECOUNT()"},
            {"metricName": "clicks", "eventType": "click", "expression": "SUM(Items.PRICE)"},
            {"metricName": "worth", "eventType": "click", "expression": "SUM(Items.PRICE)"},
        ]
    ):
        one = reporting(f"said-{number}", [metric])
        one.put_items()
        one.put("click", "lamp")
        one.put("click", "lamp")
        one.put("view", "lamp")
        (text,) = one.publish(tmp_path)
        (found[number],) = rows(text)

    assert found == {
        0: ("clicks", UNDEFINED, 2.0),
        1: ("clicks", UNDEFINED, 1.0),
        2: ("clicks", UNDEFINED, 19.0),
        3: ("worth", UNDEFINED, 19.0),
    }
    assert sorted(path.parent.name for path in tmp_path.rglob("*.csv")) == [
        f"said-{number}" for number in range(4)
    ]


def test_metrics_and_the_place_are_changed(
    reporting: Callable[..., Reporting], tmp_path: Path
) -> None:
    """The next report has the metrics that were added, none that were removed, elsewhere."""
    one = reporting("changed", METRICS[:1])
    one.service.personalize.update_metric_attribution(
        metricAttributionArn=one.attribution,
        addMetrics=[
            {"metricName": "views", "eventType": "view", "expression": "SAMPLECOUNT()"},
            {"metricName": "seen", "eventType": "view", "expression": "SUM(Items.PRICE)"},
        ],
        removeMetrics=["clicks"],
        metricsOutputConfig={
            "roleArn": ROLE, "s3DataDestination": {"path": "s3://results/elsewhere"}
        },
    )  # fmt: skip
    one.put_items()
    one.put("click", "lamp")
    one.put("view", "lamp")

    (text,) = one.publish(tmp_path)

    assert rows(text) == {("views", UNDEFINED, 1.0), ("seen", UNDEFINED, 9.5)}
    assert [path.parent.name for path in tmp_path.rglob("*.csv")] == ["elsewhere"]


def test_a_list_tells_the_campaign(reporting: Callable[..., Reporting], tmp_path: Path) -> None:
    """By the recommendationId that GetRecommendations gave."""
    one = reporting("by-list")
    for user in ("ben", "eve"):
        for item in ITEMS:
            one.put("view", item, user=user)
    stack = one.service.stack
    found = one.service.personalize.list_campaigns()["campaigns"]
    arn = next(each["campaignArn"] for each in found)
    answer = one.service.runtime.get_recommendations(campaignArn=arn, userId="ada")

    async def is_known(store: Any) -> bool:
        keys = [key async for key in store.redis.scan_iter(f"{store.key('askers')}:*")]
        known = [await store.redis.hexists(key, answer["recommendationId"]) for key in keys]
        return any(known)

    stack.wait(lambda: stack.stored(is_known), "the list is in effect")
    tracker = one.service.stack.settings.tracking_id
    built_in = client("personalize-events", one.service.personalize.meta.endpoint_url)
    event = {"eventType": "click", "itemId": "x", "sentAt": time.time()}
    built_in.put_events(
        trackingId=tracker, userId="ada", sessionId="s",
        eventList=[event | {"recommendationId": answer["recommendationId"]}],
    )  # fmt: skip
    group = arn.rpartition(":")[0] + f":dataset-group/{stack.settings.group}"
    one.service.personalize.create_metric_attribution(
        name="built-in",
        datasetGroupArn=group,
        metrics=METRICS[:1],
        metricsOutputConfig={"roleArn": ROLE, "s3DataDestination": {"path": "s3://results/own"}},
    )
    built_in.put_events(
        trackingId=tracker, userId="ada", sessionId="s",
        eventList=[event | {"recommendationId": answer["recommendationId"], "eventId": "after"}],
    )  # fmt: skip

    (text,) = one.publish(tmp_path)

    assert rows(text) == {("clicks", arn, 1.0)}, "what came before its creation is not in it"


@pytest.mark.parametrize("is_published", [True, False])
def test_an_import_publishes_its_metrics(
    reporting: Callable[..., Reporting], *, is_published: bool
) -> None:
    """Of its good rows, if it is asked for; else no file is written."""
    name = f"import-{str(is_published).lower()}"
    one = reporting(name)
    one.put_items()
    schema = schema_text(*INTERACTIONS, "EVENT_TYPE", "EVENT_ATTRIBUTION_SOURCE")
    dataset = one.service.dataset(one.group, "INTERACTIONS", schema)
    data = [
        {"USER_ID": f"u{n}", "ITEM_ID": item, "TIMESTAMP": START_S + n, "EVENT_TYPE": kind,
         "EVENT_ATTRIBUTION_SOURCE": source}
        for n, (item, kind, source) in enumerate(
            [("tent", "click", "a"), ("lamp", "click", "b"), ("lamp", "click", "b"),
             ("lamp", "purchase", "b"), ("rope", "view", "a")]
        )
    ]  # fmt: skip
    where = one.service.put("data", f"{name}.csv", csv_text([*data[0]], data))

    said = one.service.imported(name, dataset, where, publishAttributionMetricsToS3=is_published)

    assert said["status"] == "ACTIVE"
    listed = one.service.s3.list_objects_v2(Bucket="results", Prefix=f"{name}/")
    keys = [each["Key"] for each in listed.get("Contents", ())]
    assert len(keys) == is_published
    for key in keys:
        assert key.startswith(f"{name}/AggregatedAttributionMetrics - BulkImport - ")
        text = one.service.s3.get_object(Bucket="results", Key=key)["Body"].read().decode()
        assert rows(text) == {
            ("clicks", "a", 1.0), ("clicks", "b", 2.0), ("revenue", "b", 9.5), ("paid", "b", 0.0),
        }  # fmt: skip


def test_an_import_cannot_publish_without_an_attribution(jobs_service: Service) -> None:
    """It would say that it does, and write nothing."""
    personalize = jobs_service.personalize
    group = personalize.create_dataset_group(name="no-attribution")["datasetGroupArn"]
    dataset = jobs_service.dataset(group, "INTERACTIONS", schema_text(*INTERACTIONS))

    with pytest.raises(ClientError, match="needs a metric attribution"):
        jobs_service.import_job(
            "none", dataset, "s3://data/x.csv", publishAttributionMetricsToS3=True
        )

"""Reports of a metric attribution: events by their source, in windows of a quarter of an hour.

A metric counts the events of one type (SAMPLECOUNT()), or sums a column of their items or of
themselves (SUM(Items.PRICE), SUM(Interactions.WATCHED)). Nothing here reads a store or a clock.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from models.events import Event
from models.metadata_records import Properties, named_values

WINDOW_S = 900
"""Width of the times that are counted together, as Amazon Personalize has it."""

MAX_SOURCES = 100
"""Sources of a report, as Amazon Personalize has it; events of others count as of none."""

UNDEFINED = "SOURCE_NAME_UNDEFINED"
"""Source of events that name neither a source nor a list that is known."""

COLUMNS = (
    "METRIC_NAME", "EVENT_TYPE", "VALUE", "MATH_FUNCTION", "EVENT_ATTRIBUTION_SOURCE", "TIMESTAMP",
)  # fmt: skip

EXPRESSION = re.compile(
    r"SAMPLECOUNT\(\s*\)|SUM\(\s*(?P<dataset>Items|Interactions)\."
    r"(?P<column>[A-Za-z_][A-Za-z0-9_]*)\s*\)",
    re.IGNORECASE,
)


class AttributedMetric(NamedTuple):
    """A metric of events of one type; without a column it counts them."""

    name: str
    event_type: str
    column: str = ""
    is_of_items: bool = False

    @property
    def function(self) -> str:
        """Name of its function in reports."""
        return "sum" if self.column else "samplecount"


def metric_of(members: Mapping[str, str]) -> AttributedMetric:
    """The metric that the API's members describe; their expression is a valid one.

    >>> metric_of({"metricName": "value", "eventType": "buy", "expression": "SUM(Items.PRICE)"})
    AttributedMetric(name='value', event_type='buy', column='PRICE', is_of_items=True)
    """
    found = EXPRESSION.fullmatch(members["expression"].strip())
    if found is None:
        raise ValueError(f"not an expression: {members['expression']!r}")
    column = found["column"] or ""
    is_of_items = (found["dataset"] or "").lower() == "items"
    return AttributedMetric(members["metricName"], members["eventType"], column, is_of_items)


class _Place(NamedTuple):
    """Key of a count: the number of a metric, a source, and the start of a window."""

    metric: int
    source: str
    window_s: int


class MetricReport:
    """Values of metrics, by source and window, of the events that were added.

    Memory grows with the distinct windows, and items of metrics that sum a column of them.

    >>> value = AttributedMetric("value", "buy", "PRICE", True)
    >>> report = MetricReport([AttributedMetric("clicks", "click"), value])
    >>> report.add(Event("click", 1000.0, item_id="tent"), "blog")
    >>> report.add(Event("buy", 1000.0, item_id="tent"), None)
    >>> print(report.text({"tent": {"PRICE": 9.5}}), end="")
    METRIC_NAME,EVENT_TYPE,VALUE,MATH_FUNCTION,EVENT_ATTRIBUTION_SOURCE,TIMESTAMP
    clicks,click,1.0,samplecount,blog,900
    value,buy,9.5,sum,SOURCE_NAME_UNDEFINED,900
    """

    def __init__(self, metrics: Sequence[AttributedMetric]) -> None:
        self._metrics = metrics
        self._by_type: dict[str, list[int]] = defaultdict(list)
        for number, metric in enumerate(metrics):
            self._by_type[metric.event_type].append(number)
        self._values: dict[_Place, float] = defaultdict(float)
        self._items: dict[_Place, Counter[str]] = defaultdict(Counter)
        self._sources: set[str] = set()

    def counts(self, event_type: str) -> bool:
        """True if a metric is of events of this type."""
        return event_type in self._by_type

    def add(self, event: Event, source: str | None) -> None:
        """Count an event of a source; None for no known one."""
        known = source or UNDEFINED
        if known not in self._sources and known != UNDEFINED:
            if len(self._sources) >= MAX_SOURCES:
                known = UNDEFINED
            else:
                self._sources.add(known)
        window_s = int(event.sent_at // WINDOW_S) * WINDOW_S
        for number in self._by_type.get(event.event_type, ()):
            metric = self._metrics[number]
            place = _Place(number, known, window_s)
            if not metric.column:
                self._values[place] += 1.0
            elif not metric.is_of_items:
                self._values[place] += _number(_column_of(event, metric.column))
            elif event.item_id is not None:
                self._items[place][event.item_id] += 1

    @property
    def item_ids(self) -> list[str]:
        """Items whose columns are summed."""
        return sorted({item for counted in self._items.values() for item in counted})

    def text(self, properties: Mapping[str, Properties | None]) -> str:
        """The report as CSV, with these properties of its items; "" without any event.

        Items without the column, or with another value than a number, add nothing.
        """
        values = dict(self._values)
        for place, counted in self._items.items():
            column = self._metrics[place.metric].column
            values[place] = sum(
                n * _number(named_values(properties.get(item), [column]).get(column))
                for item, n in counted.items()
            )
        if not values:
            return ""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        for place in sorted(values):
            metric = self._metrics[place.metric]
            writer.writerow(
                (metric.name, metric.event_type, float(values[place]), metric.function,
                 place.source, place.window_s)
            )  # fmt: skip
        return text.getvalue()


def lists_named(events: Iterable[Event]) -> list[str]:
    """Distinct ids of the lists that tell the source of events which name none themselves."""
    return list(
        dict.fromkeys(
            event.recommendation_id
            for event in events
            if event.recommendation_id is not None and event.metric_attribution is None
        )
    )


def source_of(event: Event, sources: Mapping[str, str]) -> str | None:
    """The source of an event, by that of lists where it names none; None without one.

    >>> from models.events import MetricAttribution
    >>> own = MetricAttribution("blog")
    >>> source_of(Event("a", 1.0, recommendation_id="r", metric_attribution=own), {"r": "x"})
    'blog'
    >>> source_of(Event("a", 1.0, recommendation_id="r"), {"r": "x"})
    'x'
    """
    if event.metric_attribution is not None:
        return event.metric_attribution.event_attribution_source
    return None if event.recommendation_id is None else sources.get(event.recommendation_id)


def _column_of(event: Event, column: str) -> Any:  # noqa: ANN401  any JSON
    if column.replace("_", "").lower() == "eventvalue":
        return event.event_value
    properties = event.properties
    if isinstance(properties, str):
        try:
            properties = msgspec.json.decode(properties)
        except msgspec.DecodeError:
            return None
    return named_values(properties, [column]).get(column) if isinstance(properties, dict) else None


def _number(value: Any) -> float:  # noqa: ANN401  any JSON
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0.0
    # JSON has whole numbers of any length: no float holds these.
    return float(value) if abs(value) <= sys.float_info.max else 0.0

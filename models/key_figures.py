"""Key figures of a span of time, from sums that any number of processes have added to.

All sums are additive, so that it does not matter which process adds when, and how many there are:

    worker_s, api_s             seconds that workers, and processes of the API, cover
    events                      events in effect
    fresh/<limit>               messages in effect within that many seconds of their acceptance
    requests, failed            requests, and those answered with 5xx
    answer/<limit>              requests answered within that many seconds
    lag_s                       messages not in effect, times the seconds that they were not
    dead                        dead letters
    level/<level>               answers at that level of serving
    quality/<objective>/<order>/<n, hr, rr, rr2>
                                examples, hits, and sums of reciprocal ranks and of their squares
    choices                     examples whose candidate sources are counted:
    found/<source>              those whose taken item the source had, and
    alone/<source>              no other one
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

SERVED: Final = "served"
"""Name, beside those of the compared orders, of the one that served at the time."""

Z = 1.96
"""Standard errors of an interval of 95 %."""


Interval = Annotated[list[float], Meta(min_length=2, max_length=2, description="From and to.")]


class MeasuredOrder(msgspec.Struct, frozen=True, rename="camel"):
    """HR@20 and MRR@20 of one order of the candidates, with intervals of 95 %."""

    objective: str
    order: Annotated[str, Meta(description="Its name; served: the one that answers were in.")]
    examples: int
    hr: float
    hr_interval: Interval
    mrr: float
    mrr_interval: Interval


class SourceGain(msgspec.Struct, frozen=True, rename="camel"):
    """Gain of one candidate source: shares of the choices whose taken item it had."""

    source: Annotated[str, Meta(description="event, hop, alike, text, history or lists.")]
    choices: Annotated[int, Meta(description="Choices, of which the shares are.")]
    found: Annotated[float, Meta(description="The source had the item that was taken.")]
    alone: Annotated[float, Meta(description="No other source had it.")]


class KeyFigures(msgspec.Struct, frozen=True, rename="camel"):
    """Key figures of one minute or hour; null where nobody has measured."""

    at: Annotated[float, Meta(description="Its beginning, Unix seconds.")]
    events_per_s: float | None
    freshness_p50_ms: float | None
    freshness_p99_ms: float | None
    lag: Annotated[float | None, Meta(description="Messages not in effect, the mean.")]
    dead_letters: int | None
    requests_per_s: float | None
    failed_per_s: float | None
    answer_p50_ms: float | None
    answer_p99_ms: float | None
    memory_bytes: Annotated[float | None, Meta(description="In use by Redis, at its end.")]
    levels: Annotated[
        dict[str, int],
        Meta(description="Answers by level: ranked, retrieved, trending, or cached."),
    ]
    quality: list[MeasuredOrder]
    sources: Annotated[
        list[SourceGain], Meta(description="What each candidate source had of what was taken.")
    ]


def key_figures(sums: Mapping[str, float], *, at_s: float, elapsed_s: float) -> KeyFigures:
    """The figures of a span of time that began at `at_s`, of which `elapsed_s` are over.

    >>> sums = {"worker_s": 30.0, "events": 60.0, "fresh/0.01": 9.0, "fresh/+Inf": 10.0}
    >>> found = key_figures(sums, at_s=0.0, elapsed_s=60.0)
    >>> found.events_per_s, found.freshness_p50_ms, found.requests_per_s
    (2.0, 5.56, None)
    """
    worked_s, served_s = (min(elapsed_s, sums.get(name, 0.0)) for name in ("worker_s", "api_s"))

    def rate(name: str, over_s: float) -> float | None:
        return round(sums.get(name, 0.0) / over_s, 3) if over_s else None

    fresh, answered = (_histogram(sums, name) for name in ("fresh", "answer"))
    return KeyFigures(
        at=at_s,
        events_per_s=rate("events", worked_s),
        freshness_p50_ms=_milliseconds(quantile(fresh, 0.5)),
        freshness_p99_ms=_milliseconds(quantile(fresh, 0.99)),
        lag=rate("lag_s", worked_s),
        dead_letters=int(sums.get("dead", 0)) if worked_s else None,
        requests_per_s=rate("requests", served_s),
        failed_per_s=rate("failed", served_s),
        answer_p50_ms=_milliseconds(quantile(answered, 0.5)),
        answer_p99_ms=_milliseconds(quantile(answered, 0.99)),
        memory_bytes=sums.get("memory"),
        levels=_counts(sums, "level"),
        quality=_quality(sums),
        sources=_sources(sums),
    )


def quality_sums(
    objective: str, ranks: Mapping[str, int], champion: str, *, cutoff: int
) -> dict[str, float]:
    """Sums of one example, by the rank that each order gave to the taken item; 0 for none.

    Those of the order that served are left out where a challenger did, whose rank is not known.

    >>> quality_sums("purchases", {"blend": 4}, "blend", cutoff=20)["quality/purchases/served/rr"]
    0.25
    """
    shown = {**ranks, SERVED: ranks[champion]} if champion in ranks else ranks
    sums: dict[str, float] = {}
    for order, rank in shown.items():
        reciprocal = 1.0 / rank if 1 <= rank <= cutoff else 0.0
        of_one = {"n": 1.0, "hr": float(reciprocal > 0), "rr": reciprocal, "rr2": reciprocal**2}
        sums |= {f"quality/{objective}/{order}/{name}": value for name, value in of_one.items()}
    return sums


def source_sums(sources: Collection[str]) -> dict[str, float]:
    """Sums of one example, by the candidate sources that had the taken item; none: it was missed.

    >>> source_sums(["alike"])
    {'choices': 1.0, 'found/alike': 1.0, 'alone/alike': 1.0}
    """
    sums = {"choices": 1.0} | {f"found/{name}": 1.0 for name in sources}
    return sums | ({f"alone/{name}": 1.0 for name in sources} if len(sources) == 1 else {})


def quantile(within: Mapping[float, float], share: float) -> float | None:
    """The value that a share of measurements is within, by the counts of a histogram's limits.

    Between two limits in proportion; the last finite limit for what is beyond. None without any.

    >>> quantile({1.0: 4, 2.0: 8, math.inf: 8}, 0.75)
    1.5
    """
    limits = sorted(within)
    total = within[limits[-1]] if limits else 0
    if not total:
        return None
    wanted, low, below = share * total, 0.0, 0.0
    for limit in limits:
        if within[limit] >= wanted and within[limit] > below:
            if limit == math.inf:
                return low
            return low + (limit - low) * (wanted - below) / (within[limit] - below)
        low, below = limit, within[limit]
    return low


def proportion_interval(hits: float, n: float) -> tuple[float, float]:
    """Interval of a proportion (Wilson 1927), which is right for few and for rare hits too.

    >>> [round(end, 3) for end in proportion_interval(0, 10)]
    [0.0, 0.278]
    """
    if not n:
        return 0.0, 1.0
    mean, square = hits / n, Z * Z / n
    middle = (mean + square / 2) / (1 + square)
    half = Z * math.sqrt(mean * (1 - mean) / n + square / (4 * n)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_interval(total: float, squares: float, n: float) -> tuple[float, float]:
    """Interval of a mean between 0 and 1, by the sum of values and of their squares.

    >>> mean_interval(1.0, 1.0, 1)
    (0.0, 1.0)
    """
    if n < 2:
        return 0.0, 1.0
    mean = total / n
    half = Z * math.sqrt(max(0.0, squares / n - mean * mean) / (n - 1))
    return max(0.0, mean - half), min(1.0, mean + half)


class Additions:
    """Increases of totals that only grow, since they were last taken."""

    def __init__(self, read: Callable[[], Mapping[str, float]]) -> None:
        self._read = read
        self._before = dict(read())

    def take(self) -> dict[str, float]:
        """Additions that are not 0, by name.

        >>> totals = {"events": 7.0}
        >>> added = Additions(lambda: totals)
        >>> totals["events"] = 9.0
        >>> added.take(), added.take()
        ({'events': 2.0}, {})
        """
        now = dict(self._read())
        news = {name: total - self._before.get(name, 0.0) for name, total in now.items()}
        self._before = now
        return {name: added for name, added in news.items() if added}


def bucket_totals(
    name: str,
    metrics: Iterable[Any],
    is_counted: Callable[[Mapping[str, str]], bool] = lambda _: True,
) -> dict[str, float]:
    """Counts of a histogram by limit, `<name>/<limit>`, over all its labels that are counted.

    Parameters
    ----------
    metrics
        As `prometheus_client.Histogram.collect` gives them.
    """
    totals: dict[str, float] = {}
    for metric in metrics:
        for sample in metric.samples:
            if sample.name.endswith("_bucket") and is_counted(sample.labels):
                field = f"{name}/{sample.labels['le']}"
                totals[field] = totals.get(field, 0.0) + sample.value
    return totals


def counter_total(metrics: Iterable[Any], label: str, beginning: str) -> float:
    """Total of a counter over the label's values that begin so; `metrics` as `bucket_totals`."""
    return sum(
        float(sample.value)
        for metric in metrics
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.labels[label].startswith(beginning)
    )


def _counts(sums: Mapping[str, float], name: str) -> dict[str, int]:
    return {
        field.partition("/")[2]: int(count)
        for field, count in sorted(sums.items())
        if field.startswith(f"{name}/")
    }


def _sources(sums: Mapping[str, float]) -> list[SourceGain]:
    n = sums.get("choices", 0.0)
    return [
        SourceGain(name, int(n), round(found / n, 4), round(sums.get(f"alone/{name}", 0.0) / n, 4))
        for name, found in _counts(sums, "found").items()
        if n
    ]


def _histogram(sums: Mapping[str, float], name: str) -> dict[float, float]:
    return {
        float(field.partition("/")[2]): count
        for field, count in sums.items()
        if field.startswith(f"{name}/")
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 2)


def _quality(sums: Mapping[str, float]) -> list[MeasuredOrder]:
    found = []
    for field in sorted(sums):
        if not field.startswith("quality/") or not field.endswith("/n"):
            continue
        _, objective, order, _ = field.split("/")
        n, hits, total, squares = (
            sums.get(f"quality/{objective}/{order}/{name}", 0.0)
            for name in ("n", "hr", "rr", "rr2")
        )
        found.append(
            MeasuredOrder(
                objective,
                order,
                int(n),
                round(hits / n, 4),
                _rounded(proportion_interval(hits, n)),
                round(total / n, 4),
                _rounded(mean_interval(total, squares, n)),
            )
        )
    return found


def _rounded(interval: tuple[float, float]) -> list[float]:
    low, high = interval
    return [round(low, 4), round(high, 4)]

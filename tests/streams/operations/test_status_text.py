"""The status as text: ten lines, problems first."""

from __future__ import annotations

import re

import msgspec
import pytest

from models.state.operations.memory import Memory
from streams.operations.status import JobStatus, PartitionStatus, Status
from streams.operations.status_text import as_text

MEASURES = {"blend": {"hr": 0.4, "mrr": 0.2, "ndcg": 0.3}}

WELL = Status(
    group="shop",
    lag=0,
    oldest_unapplied_age_s=0.0,
    newest_event_age_s=0.25,
    counts={"events": 3, "items": 2},
    dead_letters=0,
    partitions=[PartitionStatus("events.clicks", n, 7, 6, 0) for n in range(64)],
    serving={"interactions": "blend", "purchases": "blend"},
    examples={"interactions": 5, "purchases": 0},
    quality={"interactions": MEASURES, "purchases": {}},
    forward={},
    redis=Memory(120_000_000, 2_000_000_000, "noeviction"),
)


def test_ten_lines_whatever_the_numbers() -> None:
    """Many partitions, trackers and jobs add no lines; the first says that nothing is wrong."""
    many = msgspec.structs.replace(
        WELL,
        forward={"forwarded": 3, "waiting": 0, "oldest_waiting_age_s": 0.0},
        trackers={f"t{n}": {"forwarded": 1} for n in range(20)},
        jobs=[JobStatus(f"import/{n}", "CREATE IN_PROGRESS", "rows sent", n, 9) for n in range(9)],
    )
    for status in (WELL, many):
        lines = as_text(status).splitlines()
        assert len(lines) == 10
        assert lines[0] == "group shop: nothing is wrong"
        assert all(re.match(r"[a-z ]+: +\S", line) for line in lines), "a blank behind each name"
    text = as_text(many)
    assert "import/0: CREATE IN_PROGRESS, rows sent 0 of 9; 8 more" in text
    assert "20 trackers, forwarded 3" in text
    assert "120 MB of 2000, noeviction" in text


def test_partitions_only_on_request() -> None:
    """A row for each, under a header, below the ten lines."""
    rows = as_text(WELL, partitions=True).splitlines()[10:]
    assert len(rows) == 1 + len(WELL.partitions)
    assert rows[0].split() == ["topic", "partition", "end", "watermark", "lag"]
    assert rows[1].split() == ["events.clicks", "0", "7", "6", "0"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"oldest_unapplied_age_s": 45.0}, "events wait for 45 s: see that a worker runs"),
        ({"dead_letters": 4}, "4 dead letters: see `recommender dead-letters list`"),
        ({"redis": Memory(1, 0, "allkeys-lru")}, "Redis evicts (allkeys-lru)"),
        ({"redis": Memory(95, 100)}, "Redis is 95% full"),
        ({"forward": {"oldest_waiting_age_s": 301.0}}, "events wait for 301 s to be forwarded"),
    ],
)
def test_problems_are_in_the_first_line(change: dict[str, object], said: str) -> None:
    """Each kind of problem is named, with the remedy."""
    first = as_text(msgspec.structs.replace(WELL, **change)).splitlines()[0]
    assert first.startswith(f"group shop: {said}")


def test_the_worst_comes_first() -> None:
    """Waiting events are worse than dead letters."""
    both = msgspec.structs.replace(WELL, dead_letters=1, oldest_unapplied_age_s=99.0)
    first = as_text(both).splitlines()[0]
    assert first.index("events wait") < first.index("1 dead letters")


def test_lag_names_the_partition_with_most_of_it() -> None:
    """With the number of partitions behind, and the age of the oldest message."""
    behind = [PartitionStatus("events.clicks", 0, 9, 6, 2), PartitionStatus("users", 3, 9, 1, 7)]
    status = msgspec.structs.replace(WELL, lag=9, partitions=behind, oldest_unapplied_age_s=1.5)
    assert "9 messages in 2 of 2 partitions, the oldest 1.5 s old; most in users/3: 7" in as_text(
        status
    )

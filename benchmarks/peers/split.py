"""Training and test clicks of Serenade's own split, or of any event file."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers.peer import Click


class Split(NamedTuple):
    """Clicks in order of time: those to learn from, and those to predict."""

    train: list[Click]
    test: list[Click]


def read_split(folder: Path, *, limit: int) -> Split:
    """`train.txt.gz` and `test.txt.gz` (`SessionId ItemId Time`), at most so many of each.

    Of the training clicks the newest are kept; of the test clicks the first whole sessions.
    """
    train = sorted(_clicks(folder / "train.txt.gz"), key=lambda click: click.at_s)
    test = sorted(_clicks(folder / "test.txt.gz"), key=lambda click: click.at_s)
    if len(test) > limit:
        kept: set[str] = set()
        for n_clicks, click in enumerate(test):
            if n_clicks < limit:
                kept.add(click.session)
        test = [click for click in test if click.session in kept]
    return Split(train[-limit:], test)


def _clicks(file: Path) -> Iterator[Click]:
    with gzip.open(file, "rt", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            yield Click(row["SessionId"], row["ItemId"], float(row["Time"]))

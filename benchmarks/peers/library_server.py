"""A library behind the plainest FastAPI service: `python -m benchmarks.peers.library_server ...`.

The training clicks come on standard input, one `session item seconds` a line; then it listens, and
says so with a line `ready SECONDS`, those that learning took.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Protocol

import uvicorn
from fastapi import FastAPI

from benchmarks.peers.peer import Click, K
from models.evaluation.session_neighbours import SessionNeighbours

NEIGHBOURS = 200


class Model(Protocol):
    """A model of next items."""

    def fit(self, clicks: Sequence[Click]) -> None:
        """Learn from all of these."""

    def learn(self, click: Click) -> None:
        """Learn from one more, if it can."""

    def next_items(self, session: str, context: Sequence[str]) -> list[str]:
        """The best items after these."""


class Empty:
    """Nothing: what HTTP alone costs."""

    def fit(self, clicks: Sequence[Click]) -> None:
        """Learn nothing."""

    def learn(self, click: Click) -> None:
        """Learn nothing."""

    def next_items(self, session: str, context: Sequence[str]) -> list[str]:  # noqa: ARG002
        """No items."""
        return []


class Vsknn:
    """V-SKNN."""

    def __init__(self) -> None:
        self._sessions = SessionNeighbours()

    def fit(self, clicks: Sequence[Click]) -> None:
        """Learn from all of these."""
        for click in clicks:
            self.learn(click)

    def learn(self, click: Click) -> None:
        """Learn from one more."""
        self._sessions.learn(*click)

    def next_items(self, session: str, context: Sequence[str]) -> list[str]:
        """The best items after these."""
        return self._sessions.next_items(session, context, K)


class Implicit:
    """implicit's item neighbours by cosine; other sessions count when it is trained again."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def fit(self, clicks: Sequence[Click]) -> None:
        """Train on all of these."""
        # An extra, which the other models do without.
        import numpy as np  # noqa: PLC0415
        from implicit.nearest_neighbours import CosineRecommender  # noqa: PLC0415
        from scipy.sparse import csr_matrix  # noqa: PLC0415

        self._numbers = {}
        sessions: dict[str, int] = {}
        rows = [sessions.setdefault(click.session, len(sessions)) for click in clicks]
        columns = [self._numbers.setdefault(click.item, len(self._numbers)) for click in clicks]
        self._names = list(self._numbers)
        shape = (len(sessions), len(self._names))
        seen = csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)
        self._model = CosineRecommender(K=NEIGHBOURS, num_threads=1)
        self._model.fit(seen, show_progress=False)
        self._matrix = csr_matrix

    def learn(self, click: Click) -> None:
        """Nothing before the next training."""

    def next_items(self, session: str, context: Sequence[str]) -> list[str]:  # noqa: ARG002
        """Those nearest to all items of the session, without its last."""
        columns = [self._numbers[item] for item in context if item in self._numbers]
        if not columns:
            return []
        one = self._matrix(
            ([1.0] * len(columns), ([0] * len(columns), columns)), shape=(1, len(self._names))
        )
        found, _ = self._model.recommend(0, one, N=K + 1, filter_already_liked_items=False)
        names = [self._names[number] for number in found if number >= 0]
        return [name for name in names if name != context[-1]][:K]


MODELS: dict[str, type[Empty | Implicit | Vsknn]] = {
    "empty": Empty,
    "implicit": Implicit,
    "vsknn": Vsknn,
}


def application(model: Model, clicks: list[Click]) -> FastAPI:
    """The service: the session's items are its own, whatever the model learns."""
    app = FastAPI()
    sessions: dict[str, list[str]] = {}

    @app.post("/events")
    async def events(click: dict[str, str | float]) -> dict[str, int]:
        one = Click(str(click["session"]), str(click["item"]), float(click["at_s"]))
        sessions.setdefault(one.session, []).append(one.item)
        model.learn(one)
        return {"accepted": 1}

    @app.get("/recommend")
    async def recommend(session_id: str, item_id: str) -> list[str]:
        return model.next_items(session_id, sessions.get(session_id, [item_id]))

    @app.post("/fit")
    async def fit() -> dict[str, float]:
        begun_s = time.perf_counter()
        model.fit(clicks)
        return {"seconds": time.perf_counter() - begun_s}

    return app


def main() -> None:
    """Learn, then listen."""
    name, port = sys.argv[1:]
    model = MODELS[name]()
    lines = [line.split() for line in sys.stdin]
    clicks = [Click(session, item, float(at_s)) for session, item, at_s in lines]
    begun_s = time.perf_counter()
    model.fit(clicks)
    sys.stdout.write(f"ready {time.perf_counter() - begun_s:.6f}\n")
    sys.stdout.flush()
    uvicorn.run(application(model, clicks), port=int(port), access_log=False, log_level="warning")


if __name__ == "__main__":
    main()

"""The database: statements end after an interrupt at any time."""

from __future__ import annotations

import threading
from pathlib import Path

import duckdb
import pytest

from streams.preparation.database import PreparationDatabase


def opened(folder: Path) -> PreparationDatabase:
    """A database of a test."""
    return PreparationDatabase(folder, memory_mb=256, progress=lambda _doing, _share: None)


def test_a_statement_after_closing_fails(tmp_path: Path) -> None:
    """A statement whose thread an interrupt found not yet begun does not wait for ever."""
    with opened(tmp_path) as database:
        assert database.run("SELECT 1") == [(1,)]

    with pytest.raises(duckdb.ConnectionException):
        database.run("SELECT 1")


def test_closing_interrupts_a_running_statement(tmp_path: Path) -> None:
    """A statement that runs during closing is interrupted first."""
    with opened(tmp_path) as database:
        failures: list[BaseException] = []

        def count() -> None:
            try:
                database.run("SELECT count(*) FROM range(100000000000) AS one(n) WHERE n % 7 = 3")
            except duckdb.Error as error:
                failures.append(error)

        abandoned = threading.Thread(target=count)
        abandoned.start()
        while not database._working.locked():
            pass

    abandoned.join()
    assert isinstance(failures[0], duckdb.InterruptException)

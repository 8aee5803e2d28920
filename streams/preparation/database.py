"""DuckDB as `prepare` uses it: in a folder of its own, within its memory, told to stop at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import duckdb

from models.errors import CannotPrepare

ReportProgress = Callable[[str, float], None]
"""Told what is being done, and which share of it, 0 to 1, is."""

MAX_THREADS = 4
"""Each takes memory of its own."""

POLL_S = 0.1


class PreparationDatabase:
    """A database on disk that spills what memory does not hold; a context manager.

    No extension is ever loaded or fetched. Times without a zone are in UTC.

    Parameters
    ----------
    folder
        For the database and what it spills; whoever made it removes it.
    memory_mb
        How much memory the engine may take.
    progress
        Called a few times a second while a statement runs.
    """

    def __init__(self, folder: Path, *, memory_mb: int, progress: ReportProgress) -> None:
        self.folder = folder
        self._memory_mb = memory_mb
        self._progress = progress
        self._working = threading.Lock()
        self._connection = duckdb.connect(
            folder / "prepare.duckdb",
            config={
                "allow_community_extensions": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "memory_limit": f"{memory_mb}MB",
                "temp_directory": str(folder / "spilled"),
                "threads": min(MAX_THREADS, os.cpu_count() or 1),
            },
        )
        self.run("SET TimeZone = 'UTC'")
        self.run("SET enable_progress_bar = true")
        self.run("SET enable_progress_bar_print = false")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # An interrupt may have come in the middle of a thread's start: nobody waits for that one,
        # and it may begin only after this.
        while not self._working.acquire(timeout=POLL_S):
            self._connection.interrupt()
        try:
            self._connection.close()
        finally:
            self._working.release()

    def lock(self, writable: Path) -> None:
        """From here on, no statement reads or writes a file outside one folder, or undoes this."""
        self.run(f"SET allowed_directories = [{literal(str(writable.resolve()))}]")
        self.run("SET enable_external_access = false")
        self.run("SET lock_configuration = true")

    def run(
        self, statement: str, parameters: Sequence[object] = (), *, doing: str = ""
    ) -> list[tuple[Any, ...]]:
        """The rows that a statement gives; an interrupt ends it.

        Raises
        ------
        CannotPrepare
            When memory or disk do not suffice.
        duckdb.Error
            When the statement fails otherwise.
        """
        rows: list[tuple[Any, ...]] = []
        failures: list[BaseException] = []

        def work() -> None:
            try:
                with self._working:
                    rows.extend(self._connection.execute(statement, parameters).fetchall())
            except BaseException as error:  # noqa: BLE001  it is raised where the result is awaited
                failures.append(error)

        # In a thread of its own, because this one could not be interrupted while the engine works.
        worker = threading.Thread(target=work, name="duckdb")
        try:
            worker.start()
            while worker.is_alive():
                worker.join(POLL_S)
                if doing:
                    self._progress(doing, max(0.0, self._connection.query_progress() / 100))
        finally:
            while worker.is_alive():
                self._connection.interrupt()
                worker.join(POLL_S)
        if failures:
            raise self._explained(failures[0]) from failures[0]
        return rows

    def _explained(self, error: BaseException) -> BaseException:
        if isinstance(error, duckdb.OutOfMemoryException):
            return CannotPrepare(
                f"{self._memory_mb} MB of memory, or the disk of {self.folder.parent}, do not"
                " suffice: raise RECOMMENDER_PREPARE_MEMORY_MB, or name a larger disk with TMPDIR"
                f" ({str(error).splitlines()[0]})"
            )
        if isinstance(error, duckdb.IOException) and "No space left" in str(error):
            return CannotPrepare(f"{self.folder.parent} is full: name a larger disk with TMPDIR")
        return error


def literal(value: str) -> str:
    """A text as SQL.

    >>> literal("it's")
    "'it''s'"
    """
    return "'" + value.replace("'", "''") + "'"


def identifier(value: str) -> str:
    """A name as SQL, whatever is in it.

    >>> identifier('a "b" c')
    '"a ""b"" c"'
    """
    return '"' + value.replace('"', '""') + '"'

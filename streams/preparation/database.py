"""The DuckDB database of `prepare`: on disk, within a memory limit, interruptible."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import duckdb

from models.errors import CannotPrepare

ReportProgress = Callable[[str, float], None]
"""Called with the present step and its finished share, 0 to 1."""

MAX_THREADS = 4
"""Each thread takes memory."""

POLL_S = 0.1


class PreparationDatabase:
    """A database on disk that spills to disk beyond its memory limit; a context manager.

    Extensions are never loaded nor fetched. Times without a zone are in UTC.

    Parameters
    ----------
    folder
        Folder of the database and its spilled data; removed by its creator.
    memory_mb
        Memory limit of DuckDB.
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
        # An interrupt may come while a thread starts: that thread is not awaited, and its
        # statement may begin only after this.
        while not self._working.acquire(timeout=POLL_S):
            self._connection.interrupt()
        try:
            self._connection.close()
        finally:
            self._working.release()

    def lock(self, writable: Path) -> None:
        """Restrict all later statements to files in one folder; cannot be undone."""
        self.run(f"SET allowed_directories = [{literal(str(writable.resolve()))}]")
        self.run("SET enable_external_access = false")
        self.run("SET lock_configuration = true")

    def run(
        self, statement: str, parameters: Sequence[object] = (), *, doing: str = ""
    ) -> list[tuple[Any, ...]]:
        """The rows of a statement; an interrupt ends it.

        Raises
        ------
        CannotPrepare
            Memory or disk do not suffice.
        duckdb.Error
            The statement fails otherwise.
        """
        rows: list[tuple[Any, ...]] = []
        failures: list[BaseException] = []

        def work() -> None:
            try:
                with self._working:
                    rows.extend(self._connection.execute(statement, parameters).fetchall())
            except BaseException as error:  # noqa: BLE001  raised by the waiting thread
                failures.append(error)

        # In a thread of its own: the main thread cannot be interrupted inside DuckDB.
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
    """A text as an SQL literal.

    >>> literal("it's")
    "'it''s'"
    """
    return "'" + value.replace("'", "''") + "'"


def identifier(value: str) -> str:
    """A name as a quoted SQL identifier.

    >>> identifier('a "b" c')
    '"a ""b"" c"'
    """
    return '"' + value.replace('"', '""') + '"'

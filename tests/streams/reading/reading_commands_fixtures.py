"""The four commands that read files, run on small files: the events they read, and their errors.

`replay`, `evaluate` and `prepare` are run as commands in this process: the events of a replay are
read back from Kafka, and an evaluation is stopped after reading. Of an import only the reading is
run; the tests of jobs cover the rest.
"""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn
from unittest import mock

from click.testing import CliRunner, Result

from cli import main
from models.errors import RecommenderError
from models.events import PutEvents, parse
from models.personalize.datasets.dataset_schemas import parse_schema
from models.settings import Settings
from models.state.users.interactions import Interaction
from streams.jobs.imports import ImportSource, ImportSurvey
from streams.kafka.consuming.offsets import end_offsets, messages
from streams.kafka.topics import Topics
from streams.object_store import Objects
from tests.personalize.control_fixtures import INTERACTIONS, schema_text

NAMES = ("replay", "evaluate", "prepare", "import")

_PLACE = re.compile(r"((?:line|record) \d+): ((?:(?!; /)[^\n])*)")

Rows = list[tuple[str, str, str, float]]
"""User, type, item and time of events, sorted."""


class File(NamedTuple):
    """A small file, with the columns of an import's schema beside the required ones."""

    name: str
    content: bytes
    columns: tuple[str, ...] = ()


class ReadResult(NamedTuple):
    """Result of reading a file.

    Attributes
    ----------
    bad
        Places of dropped rows, with the reasons.
    error
        Error of an unreadable file; "" otherwise.
    """

    rows: Rows
    bad: dict[str, str]
    error: str = ""


class _StopReading(Exception):
    """Stops an evaluation after reading."""


class ReadingCommands:
    """The commands on one broker, and files for them."""

    def __init__(self, settings: Settings, folder: Path, files: Mapping[str, File]) -> None:
        self._settings = settings
        self._folder = folder
        self._files = files
        self._paths: dict[str, Path] = {}
        for key, file in files.items():
            self._paths[key] = folder / key / file.name
            self._paths[key].parent.mkdir()
            self._paths[key].write_bytes(file.content)

    def take(self, command: str, key: str) -> ReadResult:
        """Read a file with a command."""
        taken: Mapping[str, Callable[[str], ReadResult]] = {
            "replay": self._replay,
            "evaluate": self._evaluate,
            "prepare": self._prepare,
            "import": self._import,
        }
        return taken[command](key)

    def _replay(self, key: str) -> ReadResult:
        settings = self._settings
        ends = end_offsets(settings, [Topics.of(settings).clicks, Topics.of(settings).purchases])
        done = self._run("replay", str(self._paths[key]))
        rows = []
        for message in messages(settings, ends):
            sent = parse(message.value, now_s=2e9)
            for event in sent.event_list:
                owner = sent.user_id or sent.session_id
                rows.append((owner, event.event_type, str(event.item_id), event.sent_at))
        return _result(done, rows)

    def _evaluate(self, key: str) -> ReadResult:
        found: Rows = []

        def capture(events: Iterable[Interaction], **_: object) -> NoReturn:
            found.extend((one.user, one.type, one.item, one.at_s) for one in events)
            raise _StopReading

        with mock.patch("models.evaluation.query_steps.sort_and_shuffle", capture):
            done = self._run("evaluate", str(self._paths[key]), "--as", "users")
        return _result(done, found)

    def _prepare(self, key: str) -> ReadResult:
        target = self._folder / f"{key}-prepared"
        done = self._run("prepare", str(self._paths[key]), str(target), "--relaxed")
        if done.exit_code:
            return _result(done, [])
        rows = []
        with (target / "interactions.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                kind = row.get("EVENT_TYPE", "interaction")
                rows.append((row["USER_ID"], kind, row["ITEM_ID"], float(row["TIMESTAMP"])))
        dropped = re.findall(r"^ +1  (.*?)  \((.*)\)$", done.output, re.MULTILINE)
        return ReadResult(sorted(rows), {place: reason for reason, place in dropped})

    def _import(self, key: str) -> ReadResult:
        columns = (*INTERACTIONS, *self._files[key].columns)
        schema = parse_schema(schema_text(*columns))
        source = ImportSource(str(self._paths[key]), schema, "INTERACTIONS")
        settings, now_s, survey = self._settings, time.time(), ImportSurvey()
        rows: Rows = []
        try:
            read = source.open(Objects(), settings, now_s=now_s).read()
            for row, one in source.parsed(read, settings, now_s=now_s):
                survey.add(row, one)
                for event in one.event_list if isinstance(one, PutEvents) else ():
                    user, item = str(one.user_id), str(event.item_id)  # type: ignore[union-attr]
                    rows.append((user, event.event_type, item, event.sent_at))
            survey.check(source.location, settings.import_bad_share)
        except RecommenderError as error:
            return ReadResult([], {}, str(error))
        return ReadResult(sorted(rows), dict(_PLACE.findall(survey.remark)))

    def _run(self, *arguments: str) -> Result:
        named = {
            "RECOMMENDER_KAFKA": self._settings.kafka,
            "RECOMMENDER_DATA_DIR": str(self._folder),
            "RECOMMENDER_PARTITIONS": "1",
        }
        return CliRunner().invoke(main, arguments, env=named)


def _result(done: Result, rows: Rows) -> ReadResult:
    """The result of a command."""
    error = "" if isinstance(done.exception, _StopReading) or not done.exit_code else done.output
    return ReadResult(sorted(rows), {} if error else dict(_PLACE.findall(done.output)), error)

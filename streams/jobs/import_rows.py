"""What the rows of an import say: events and records to send, or what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from models.errors import InvalidEvent, InvalidInput, InvalidRecord
from models.events import PutEvents
from models.metadata_records import Properties, RecordKind
from models.personalize.dataset_rows import event_of, record_of
from models.personalize.dataset_schemas import Schema
from models.settings import Settings
from streams.jobs.dataset_files import DatasetRow, DatasetRows
from streams.object_store import Objects
from streams.reading.column_mapping import DatasetKind as RowKind

MAX_SHOWN = 10

_KINDS_OF_ROWS: dict[str, RowKind] = {
    "INTERACTIONS": "interactions",
    "ITEMS": "items",
    "USERS": "users",
}

Good = PutEvents | tuple[str, Properties]


class ImportSource(NamedTuple):
    """Where the rows are, and what they are rows of."""

    location: str
    schema: Schema
    dataset_type: str


@dataclass
class ImportSurvey:
    """What a first reading found: rows, and the first bad ones with their places."""

    rows: int = 0
    bad: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, row: DatasetRow, said: Good | Exception) -> None:
        """Count a row."""
        self.rows += 1
        if isinstance(said, Exception):
            self.bad += 1
            if len(self.first) < MAX_SHOWN:
                self.first.append(f"{row.where}: {said}")

    @property
    def remark(self) -> str:
        """What was left out, for people; empty if nothing was."""
        if not self.bad:
            return ""
        return f"{self.bad} of {self.rows} rows were left out: " + "; ".join(self.first)

    def check(self, location: str, allowed_share: float) -> None:
        """Raise `InvalidInput` where there are no rows, or too many bad ones."""
        if not self.rows:
            raise InvalidInput(f"{location} has no rows")
        if self.bad == self.rows or self.bad > allowed_share * self.rows:
            raise InvalidInput(
                f"{self.bad} of {self.rows} rows are bad, more than the share of"
                f" {allowed_share:g} that RECOMMENDER_IMPORT_BAD_SHARE allows; nothing was"
                f" imported: {'; '.join(self.first)}"
            )


def opened(
    objects: Objects, source: ImportSource, settings: Settings, *, now_s: float
) -> DatasetRows:
    """The rows of an import, recognised; raises what `DatasetRows` does."""
    kind = _KINDS_OF_ROWS[source.dataset_type]
    latest_s = now_s + settings.future_limit_s
    return DatasetRows(objects, source.location, source.schema, kind, latest_s=latest_s)


def parsed_rows(
    rows: Iterable[DatasetRow], source: ImportSource, settings: Settings, *, now_s: float
) -> Iterator[tuple[DatasetRow, Good | Exception]]:
    """Every row, and what is to be sent of it or what is wrong with it."""
    for row in rows:
        if isinstance(row.values, InvalidRecord):
            yield row, row.values
            continue
        try:
            if source.dataset_type == "INTERACTIONS":
                limit_s = settings.future_limit_s
                yield row, event_of(row.values, now_s=now_s, future_limit_s=limit_s)
            else:
                kind: RecordKind = "items" if source.dataset_type == "ITEMS" else "users"
                yield row, record_of(kind, row.values)
        except (InvalidEvent, InvalidRecord) as error:
            yield row, error

"""Mapping of the columns of an input to the fields of a dataset: by options, format, or name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from models.errors import CannotPrepare

DatasetKind = Literal["interactions", "items", "users"]


class DatasetFields(NamedTuple):
    """Rules of Amazon Personalize for the fields of a dataset.

    Attributes
    ----------
    reserved
        Fields with a meaning of their own; those in `required` are mandatory.
    metadata
        Least and greatest number of further fields.
    keeps_others
        True if further columns become metadata by default.
    """

    schema: str
    required: tuple[str, ...]
    reserved: tuple[str, ...]
    metadata: tuple[int, int]
    keeps_others: bool


DATASETS: Mapping[DatasetKind, DatasetFields] = {
    "interactions": DatasetFields(
        "Interactions",
        ("USER_ID", "ITEM_ID", "TIMESTAMP"),
        (
            "USER_ID",
            "ITEM_ID",
            "TIMESTAMP",
            "EVENT_TYPE",
            "EVENT_VALUE",
            "IMPRESSION",
            "RECOMMENDATION_ID",
            "EVENT_ATTRIBUTION_SOURCE",
        ),
        (0, 5),
        keeps_others=False,
    ),
    "items": DatasetFields("Items", ("ITEM_ID",), ("ITEM_ID", "CREATION_TIMESTAMP"), (1, 100),
                     keeps_others=True),
    "users": DatasetFields("Users", ("USER_ID",), ("USER_ID",), (1, 25), keeps_others=True),
}  # fmt: skip

# Usual names of the columns of a field: groups, in order of likelihood, of names in order of
# likelihood; letters and digits only. Names with a slash mean different things: two of them in one
# file are ambiguous.
_USUAL_NAMES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "USER_ID": (
        ("userid", "user"),
        ("customerid", "customer"),
        ("visitorid", "visitor"),
        ("memberid/", "accountid/", "reviewerid/", "profileid/"),
        ("sessionid",),
    ),
    "ITEM_ID": (
        ("itemid", "item"),
        (
            *("productid", "product", "movieid/", "movie/", "videoid/", "video/", "articleid/"),
            *("article/", "contentid/", "bookid/", "trackid/", "songid/"),
        ),
        ("sku",),
        ("asin",),
        ("stockcode",),
    ),
    "TIMESTAMP": (
        ("timestamp/", "ts/", "time/", "eventtime/", "datetime/"),
        ("date",),
        ("unixreviewtime",),
        ("sentat/", "createdat/", "occurredat/", "invoicedate/"),
    ),
    "EVENT_TYPE": (("eventtype",), ("event",), ("type",), ("action",)),
    "EVENT_VALUE": (("eventvalue",), ("rating", "overall", "stars"), ("score",)),
    "IMPRESSION": (("impression",),),
    "RECOMMENDATION_ID": (("recommendationid",),),
    "EVENT_ATTRIBUTION_SOURCE": (("eventattributionsource",),),
    "CREATION_TIMESTAMP": (
        ("creationtimestamp",),
        ("createdat/", "creationdate/"),
        ("releasedate",),
    ),
}

MAX_SHOWN = 50
"""Most columns in an error text."""

_TIMES = frozenset({"TIMESTAMP", "CREATION_TIMESTAMP"})
_TYPED = re.compile(r":(?:token|float)(?:_seq)?\Z")
_FIELD = re.compile(r"[A-Z][A-Z0-9_]{0,62}", re.ASCII)


class ColumnAssignment(NamedTuple):
    """A column with the field that it became, if any, and the reason."""

    column: str
    field: str | None
    why: str


@dataclass(frozen=True)
class ColumnMapping:
    """The fields of the output and their columns.

    Attributes
    ----------
    fields
        Fields in order, each with the number of its column, or with the text in every row.
    assignments
        All columns with their fields, for reports.
    """

    fields: Mapping[str, int | str]
    assignments: tuple[ColumnAssignment, ...]


class ColumnOptions(NamedTuple):
    """The user's options about columns.

    Attributes
    ----------
    fields
        Column of each mapped field.
    keep, drop
        Columns to keep as metadata, and to drop.
    event_type
        Type of every event, for files without a column of types.
    """

    fields: Mapping[str, str] = {}
    keep: Sequence[str] = ()
    drop: Sequence[str] = ()
    event_type: str = ""


class ColumnEvidence(NamedTuple):
    """Evidence about columns beside their names.

    Attributes
    ----------
    fields, constants
        Columns of fields, and constant fields, by the format or by values.
    is_time
        True for a column of times; None if values were not examined.
    format
        Name of the known format; "" without one.
    list_column
        Column whose list became rows; columns inside it are matched by their own names.
    """

    fields: Mapping[str, str] = {}
    constants: Mapping[str, str] = {}
    is_time: Callable[[str], bool] | None = None
    format: str = ""
    list_column: str = ""


NO_EVIDENCE = ColumnEvidence()


def normalized_name(column: str) -> str:
    """A column name in lower-case letters and digits, without RecBole's type suffix.

    >>> normalized_name("User-ID"), normalized_name("item_id:token")
    ('userid', 'itemid')
    """
    return re.sub(r"[^a-z0-9]", "", _TYPED.sub("", column.lower()))


def short_names(columns: Sequence[str], each: str) -> list[str]:
    """Names of columns without the prefix of their list, unless the record has that name itself.

    >>> short_names(["time", "items.sku", "items.time"], "items")
    ['time', 'sku', 'items.time']
    """
    own = {normalized_name(column) for column in columns}
    short = [column.removeprefix(f"{each}.") if each else column for column in columns]
    return [
        name if name == column or normalized_name(name) not in own else column
        for name, column in zip(short, columns, strict=True)
    ]


def is_known_name(column: str, name: str = "") -> bool:
    """True if a column has a usual name of this field, or of any field.

    >>> is_known_name("movieId"), is_known_name("movieId", "USER_ID")
    (True, False)
    """
    fields = [name] if name else [*_USUAL_NAMES]
    word = normalized_name(column)
    return any(
        word == each.rstrip("/")
        for field in fields
        for group in _USUAL_NAMES[field]
        for each in group
    )


def map_columns(
    kind: DatasetKind,
    columns: Sequence[str],
    column_options: ColumnOptions,
    evidence: ColumnEvidence = NO_EVIDENCE,
) -> ColumnMapping:
    """Map every column to a field or drop it.

    >>> map_columns("interactions", ["customer", "sku", "ts", "note"], ColumnOptions()).fields
    {'USER_ID': 0, 'ITEM_ID': 1, 'TIMESTAMP': 2}

    Raises
    ------
    CannotPrepare
        A column or a required field is missing, a name is no field name, or two columns fit one
        field.
    """
    mapper = _ColumnMapper(kind, columns)
    mapper.apply_options(column_options)
    kept = [_number(column, columns) for column in column_options.keep]
    mapper.apply_evidence(evidence)
    mapper.guess(kept, evidence)
    if DATASETS[kind].keeps_others and not kept:
        kept = list(range(len(columns)))
    for n in kept:
        if n not in mapper.outcomes:
            mapper.assign(field_name(columns[n]), n, "kept")
    return mapper.finished()


class _ColumnMapper:
    """A mapping under construction: fields and the outcome of each column so far."""

    def __init__(self, kind: DatasetKind, columns: Sequence[str]) -> None:
        self.outcomes: dict[int, tuple[str | None, str]] = {}
        self._fields: dict[str, int | str] = {}
        self._columns = columns
        self._dataset = DATASETS[kind]

    def assign(self, name: str, n: int, why: str) -> None:
        """Assign a column to a field."""
        if name in self._fields:
            raise CannotPrepare(
                f"{self._columns[n]!r} and another column would both be {name}: leave one out with"
                " --drop, or name it with --map"
            )
        self._fields[name] = n
        self.outcomes[n] = (name, why)

    def apply_options(self, column_options: ColumnOptions) -> None:
        """Apply the user's options."""
        for name, column in column_options.fields.items():
            if not _FIELD.fullmatch(name):
                raise CannotPrepare(f"{name!r} cannot be a field: use A-Z, 0-9 and _")
            self.assign(name, _number(column, self._columns), "by --map")
        for column in column_options.drop:
            self.outcomes.setdefault(_number(column, self._columns), (None, "dropped"))
        if column_options.event_type and "EVENT_TYPE" in self._fields:
            raise CannotPrepare("EVENT_TYPE is a column already: leave --event-type out")
        if column_options.event_type:
            self._fields["EVENT_TYPE"] = column_options.event_type

    def apply_evidence(self, evidence: ColumnEvidence) -> None:
        """Assign the columns of the format to fields that the options do not map."""
        for name, column in evidence.fields.items():
            if name in self._fields or column not in self._columns:
                continue
            n = self._columns.index(column)
            if n not in self.outcomes:
                self.assign(name, n, evidence.format or "by its values")
        for name, text in evidence.constants.items():
            self._fields.setdefault(name, text)

    def guess(self, reserved: Sequence[int], evidence: ColumnEvidence) -> None:
        """Guess a column by its name for every field without one."""
        is_time = evidence.is_time
        names = short_names(self._columns, evidence.list_column)
        for name in self._dataset.reserved:
            # A value has no meaning without a type of event.
            is_idle = name == "EVENT_VALUE" and "EVENT_TYPE" not in self._fields
            if name in self._fields or is_idle:
                continue
            is_own_id = name == self._dataset.required[0] and self._dataset.keeps_others
            groups = (*_USUAL_NAMES[name], ("id",)) if is_own_id else _USUAL_NAMES[name]
            for group in groups:
                found = self._of_group(group, reserved, names)
                if name in _TIMES and is_time is not None and len(found) > 1:
                    found = [n for n in found if is_time(self._columns[n])] or found
                if len(found) > 1:
                    this, other = (self._columns[n] for n in found[:2])
                    raise CannotPrepare(
                        f"{name} may be {this} or {other}: name it with --map {name}={this} or"
                        f" --map {name}={other}"
                    )
                if found:
                    self.assign(name, found[0], "guessed")
                    break

    def _of_group(
        self, group: Sequence[str], reserved: Sequence[int], names: Sequence[str]
    ) -> list[int]:
        """Unassigned columns with names of a group: one, unless the names mean different things."""
        found: list[int] = []
        is_usual = False
        for word in group:
            for n, name in enumerate(names):
                if normalized_name(name) != word.rstrip("/") or n in self.outcomes or n in reserved:
                    continue
                differs = word.endswith("/") or not is_usual
                # A column movie beside movie_id holds titles.
                is_title_of_id = any(
                    normalized_name(names[each]).removesuffix("id") == word.rstrip("/")
                    for each in found
                )
                if differs and not is_title_of_id:
                    found.append(n)
                is_usual = is_usual or not word.endswith("/")
        return found

    def finished(self) -> ColumnMapping:
        """The mapping, checked against the rules of Amazon Personalize."""
        dataset = self._dataset
        for name in dataset.required:
            if name not in self._fields:
                raise CannotPrepare(
                    f"no column looks like {name} among {_shown(self._columns)}: name it with"
                    f" --map {name}=COLUMN"
                )
        reserved = [name for name in dataset.reserved if name in self._fields]
        metadata = [
            name
            for column in range(len(self._columns))
            for name, n in self._fields.items()
            if n == column and name not in dataset.reserved
        ]
        least, most = dataset.metadata
        if not least <= len(metadata) <= most:
            raise CannotPrepare(
                f"{dataset.schema} take {least} to {most} columns of metadata, not"
                f" {len(metadata)}: choose with --keep and --drop"
            )
        outcomes = (self.outcomes.get(n, (None, "not mapped")) for n in range(len(self._columns)))
        return ColumnMapping(
            {name: self._fields[name] for name in (*reserved, *metadata)},
            tuple(
                ColumnAssignment(column, *outcome)
                for column, outcome in zip(self._columns, outcomes, strict=True)
            ),
        )


def field_name(column: str) -> str:
    """A column name as a field name of Amazon Personalize.

    >>> field_name("unitPrice"), field_name("Unit price (EUR)"), field_name("user.age")
    ('UNIT_PRICE', 'UNIT_PRICE_EUR', 'USER_AGE')

    Raises
    ------
    CannotPrepare
        The name has no letters to make a field name of.
    """
    # A capital begins a word only beside small letters: A0A is one word.
    is_mixed = column != column.upper()
    column = _TYPED.sub("", column)
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column) if is_mixed else column
    name = re.sub(r"[^A-Z0-9]+", "_", words.upper()).strip("_")[:63].rstrip("_")
    if name[:1].isdigit():
        name = f"COLUMN_{name}"[:63].rstrip("_")
    if not _FIELD.fullmatch(name):
        raise CannotPrepare(f"{column!r} cannot be a field: name it with --map NAME={column}")
    return name


def _shown(columns: Sequence[str]) -> str:
    more = ", …" if len(columns) > MAX_SHOWN else ""
    return ", ".join(columns[:MAX_SHOWN]) + more


def _number(column: str, columns: Sequence[str]) -> int:
    """Number of the column of a name; in any case, if only one column fits."""
    if column in columns:
        return columns.index(column)
    alike = [n for n, each in enumerate(columns) if each.lower() == column.lower()]
    if len(alike) != 1:
        raise CannotPrepare(f"no column {column!r}: there are {_shown(columns)}")
    return alike[0]

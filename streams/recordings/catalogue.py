"""Items with their texts from a file, for `evaluate`."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import TextIO, cast

from models.errors import InvalidRecord, UnreadableRecording
from models.metadata_records import Properties, validate_properties

ID_COLUMNS = ("itemid", "item", "id", "sku", "productid", "movieid")
"""Names of the column of ids, without underscores, the first one that is there."""


def read_catalogue(file: Path) -> dict[str, Properties]:
    """Properties of each item by its id, in the order of the file; all values as text.

    Comma- or tab-separated with a head, maybe gzipped; what follows a colon in a column's name does
    not count (`item_id:token`). Of rows with one id the last counts.

    Raises
    ------
    UnreadableRecording
        There is no column of ids, or a row is not a valid record.
    """
    with _opened(file) as lines:
        head = lines.readline()
        separator = "\t" if "\t" in head else ","
        names = [
            name.strip().split(":")[0] for name in next(csv.reader([head], delimiter=separator))
        ]
        folded = [name.replace("_", "").lower() for name in names]
        column = next((folded.index(name) for name in ID_COLUMNS if name in folded), None)
        if column is None:
            raise UnreadableRecording(f"{file}: none of {', '.join(names)} is a column of item ids")
        found: dict[str, Properties] = {}
        for number, row in enumerate(csv.reader(lines, delimiter=separator), 2):
            if not row:
                continue
            values = {
                name: value
                for at, (name, value) in enumerate(zip(names, row, strict=False))
                if at != column and value
            }
            try:
                found[row[column]] = validate_properties("items", row[column], values)
            except (InvalidRecord, IndexError) as error:
                raise UnreadableRecording(f"{file}, row {number}: {error}") from error
    return found


def _opened(file: Path) -> TextIO:
    if file.suffix == ".gz":
        return cast(TextIO, gzip.open(file, "rt", encoding="utf-8-sig", newline=""))
    return file.open(encoding="utf-8-sig", newline="")

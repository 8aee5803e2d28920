"""The registered file formats. To add one, write a `file_format.Format` and register it here."""

from __future__ import annotations

from models.errors import UnreadableRecording
from streams.reading.formats.catalogue_formats import CATALOGUE_FORMATS
from streams.reading.formats.event_formats import EVENT_FORMATS
from streams.reading.formats.file_format import SHAPES, Format
from streams.reading.formats.research_formats import RESEARCH_FORMATS
from streams.reading.formats.shop_formats import SHOP_FORMATS

FORMATS: dict[str, Format] = {}
"""The registered formats by name."""


def register(*formats: Format) -> None:
    """Make formats known to every reader.

    Raises
    ------
    ValueError
        The name of a format is taken.
    """
    for each in formats:
        if each.name in names():
            raise ValueError(f"there is a format {each.name!r} already")
        FORMATS[each.name] = each


def names() -> tuple[str, ...]:
    """Values of `--format`: the shapes, and the registered formats."""
    return (*SHAPES, *FORMATS)


def check_format_name(name: str) -> None:
    """Raise `UnreadableRecording` unless the name is empty or that of a format or shape."""
    if name and name not in names():
        raise UnreadableRecording(f"no format {name!r}: there are {', '.join(names())}")


register(*EVENT_FORMATS, *RESEARCH_FORMATS, *SHOP_FORMATS, *CATALOGUE_FORMATS)

"""Options of the commands that read files: docs/formats.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from streams.reading.read_options import ReadOptions


def reading_options(*, of_events: bool = True) -> Callable[[Any], Any]:
    """Decorator that adds the options of commands that read files: docs/formats.md."""
    options = [
        click.option("--format", "format_", default="", help="Its format: docs/formats.md."),
        click.option("--columns", default="", help="Names of columns without a header: a,b,c."),
        click.option("--map", "maps", multiple=True, metavar="FIELD=COLUMN", help="A field's"
                     " column, as in USER_ID=who."),
        *([click.option("--event-type", default="", help="The type of every event; a column:"
                        " --map.")] if of_events else []),
        click.option("--separator", default="", help="Between fields: comma, tab, semicolon, …"),
        click.option("--encoding", default="", help="Such as cp1252; UTF-8 and UTF-16 are seen."),
        click.option("--time-format", default="", help='"%d/%m/%Y %H:%M", or milliseconds, ….'),
        click.option("--records", default="", help="Where JSON has its list, as in data.rows."),
        click.option("--each", default="", help="A list in a record: a row for each of it."),
    ]  # fmt: skip

    def add(command: Any) -> Any:  # noqa: ANN401
        for option in reversed(options):
            command = option(command)
        return command

    return add


def read_options(
    options: dict[str, Any], keep: Sequence[str] = (), drop: Sequence[str] = ()
) -> ReadOptions:
    """The values of `reading_options`, which are removed from the options."""
    from streams.reading.column_mapping import ColumnOptions
    from streams.reading.read_options import ReadOptions

    columns, records = options.pop("columns"), options.pop("records")
    fields = dict(map(_field_and_column, options.pop("maps")))
    return ReadOptions(
        format=options.pop("format_"),
        columns=[name.strip() for name in columns.split(",")] if columns else (),
        list_column=options.pop("each"),
        records=records.split(".") if records else (),
        column_options=ColumnOptions(fields, keep, drop, options.pop("event_type", "")),
        **{name: options.pop(name) for name in ("separator", "encoding", "time_format")},
    )


def _field_and_column(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text}: not FIELD=COLUMN", param_hint="--map")
    return name, column

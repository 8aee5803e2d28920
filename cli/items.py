"""The commands about items: import of a catalogue."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.audit import record
from cli.group import main, say
from cli.reading_options import read_options, reading_options
from cli.servers import reachable_settings
from models.settings import Settings

if TYPE_CHECKING:
    from streams.recordings.item_files import ItemFile

PREVIEWED = 5
"""Items that a preview shows."""

MAX_SHOWN_CHARACTERS = 100


@main.group()
def items() -> None:
    """Import a catalogue."""


@items.command("import")
@click.argument("source", metavar="FILE")
@reading_options(of_events=False)
@click.option("--keep", multiple=True, metavar="COLUMN", help="Take only such columns.")
@click.option("--drop", multiple=True, metavar="COLUMN", help="Leave a column out.")
@click.option("--preview", is_flag=True, help="Only show the columns and the first items.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="A file for all refused rows, one JSON object a line.",
)
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def import_file(
    source: str,
    preview: bool,
    report: Path | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401
) -> None:
    """Put the items of FILE into the catalogue: CSV, JSON, Parquet, XML feeds, Shopify's exports.

    FILE is a file, a folder, a pattern such as "feeds/*.xml", or s3://bucket/key. Each item
    replaces what was known of it; others stay. Run it again after an interruption.
    """
    import msgspec
    from tqdm import tqdm

    from streams.recordings.item_import import import_items, opened_items

    reading = read_options(options, options.pop("keep"), options.pop("drop"))
    settings = Settings() if preview else reachable_settings(needs_redis=False)
    file = opened_items(source, settings, reading, now_s=time.time())
    say(file.description)
    if preview:
        _preview(file, as_json=as_json)
        return
    record(settings, "import_items", [source], group=settings.group)
    shown = "{desc} {percentage:3.0f} %|{bar}| {elapsed}"
    with (
        _refusals(report) as on_refused,
        tqdm(total=100, disable=None, leave=False, bar_format=shown) as bar,
    ):

        def progress(doing: str, share: float) -> None:
            bar.set_description_str(doing, refresh=False)
            bar.update(100 * share - bar.n)

        done = import_items(file, settings, on_refused=on_refused, progress=progress)
    if as_json:
        click.echo(msgspec.json.encode(done).decode())
    else:
        for where, reason in done.first_refused:
            say(f"{where}: {reason}")
        if report is None and done.refused > len(done.first_refused):
            say("all refused rows: --report FILE")
        click.echo(
            f"{done.rows} rows, {done.sent} items sent, {done.refused} rows refused,"
            f" {done.seconds:.1f} s"
        )
    if not done.is_finished:
        say("interrupted: run the same command again")
        sys.exit(130)


@contextlib.contextmanager
def _refusals(path: Path | None) -> Iterator[Callable[[str, str], None]]:
    """A function that writes a refused row to the file."""
    import msgspec

    if path is None:
        yield lambda _place, _reason: None
        return
    with path.open("wb") as file:
        yield lambda place, reason: _write_line(
            file, msgspec.json.encode({"row": place, "reason": reason})
        )


def _write_line(file: Any, line: bytes) -> None:  # noqa: ANN401  a binary file
    file.write(line + b"\n")


def _preview(file: ItemFile, *, as_json: bool) -> None:
    import msgspec

    columns = [
        {"column": one.column, "property": one.field, "why": one.why}
        for one in file.mapping.assignments
    ]
    first = file.sample(PREVIEWED)
    if as_json:
        listed = [{"itemId": item_id, "properties": properties} for item_id, properties in first]
        click.echo(msgspec.json.encode({"columns": columns, "items": listed}).decode())
        return
    width = max(len(one.column) for one in file.mapping.assignments)
    for one in file.mapping.assignments:
        click.echo(f"{one.column:{width}}  {one.field or '-'}  ({one.why})")
    for item_id, properties in first:
        click.echo(f"\n{item_id}")
        for name, value in properties.items():
            text = msgspec.json.encode(value).decode()
            more = "…" if len(text) > MAX_SHOWN_CHARACTERS else ""
            click.echo(f"  {name}: {text[:MAX_SHOWN_CHARACTERS]}{more}")

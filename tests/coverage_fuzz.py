"""A fuzzer that follows the coverage of one decoder of foreign bytes, until a time is over.

    python -m tests.coverage_fuzz events FOLDER -max_total_time=60

FOLDER gets inputs to begin with, and those that reach further. The rest are options of libFuzzer,
which atheris wraps; an input that raises what its decoder does not declare ends it with another
exit code than 0, and is written to the current folder.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["api", "models"]):
    from api.request_params import RecommendParams, parse_body, parse_query
    from models import events
    from models.errors import RecommenderError
    from models.filters.grammar import parse_attributes, parse_filter
    from models.metadata_records import RecordKind, parse_record
    from models.personalize.datasets.dataset_rows import event_of, record_of, typed
    from models.personalize.datasets.dataset_schemas import Schema, check_columns, parse_schema
    from models.serving.answers import MAX_RESULTS
    from models.tokens import parse_token

NOW_S = 1.8e9
KINDS: tuple[RecordKind, ...] = ("items", "users")


def events_of(raw: bytes) -> None:
    """A message of events, or an erasure; what was parsed is the same when it is sent on."""
    events.tracking_id_of(raw)
    with contextlib.suppress(RecommenderError):
        if events.parse_erasure(raw, now_s=NOW_S) is None:
            message = events.parse(raw, now_s=NOW_S)
            if events.parse(events.encode(message), now_s=NOW_S) != message:
                raise ValueError("it is another message when it is sent on")


def records_of(raw: bytes) -> None:
    """A metadata record: its key, a line's end, its value."""
    key, _, value = raw.partition(b"\n")
    for kind in KINDS:
        with contextlib.suppress(RecommenderError):
            parse_record(kind, key, value, now_s=NOW_S)


def filters_of(raw: bytes) -> None:
    """A filter expression, and a query of attributes."""
    text = raw.decode(errors="replace")
    with contextlib.suppress(RecommenderError):
        parse_filter(text, max_fields=10)
    with contextlib.suppress(RecommenderError):
        parse_attributes(text)


def rows_of(raw: bytes) -> None:
    """A schema, a line's end, and a row with a value of it in each line."""
    first, _, rest = raw.decode(errors="replace").partition("\n")
    texts = rest.split("\n")
    with contextlib.suppress(RecommenderError):
        schema = parse_schema(first)
        for dataset in ("ITEMS", "USERS", "INTERACTIONS"):
            with contextlib.suppress(RecommenderError):
                check_columns(schema, dataset, None)
                row_of(schema, dataset, texts)


def row_of(schema: Schema, dataset: str, texts: Sequence[str]) -> None:
    """A row of a dataset, whose empty values are absent; one that is too short is filled."""
    filled = [*texts, *[""] * len(schema.columns)]
    found = {
        column.name: typed(column, text or None)
        for column, text in zip(schema.columns, filled, strict=False)
    }
    values = {name: value for name, value in found.items() if value is not None}
    if dataset == "INTERACTIONS":
        event_of(values, now_s=NOW_S, future_limit_s=0)
    else:
        record_of("items" if dataset == "ITEMS" else "users", values)


def tokens_of(raw: bytes) -> None:
    """A read-your-writes token."""
    with contextlib.suppress(RecommenderError):
        parse_token(raw.decode("latin-1"))


def questions_of(raw: bytes) -> None:
    """A question with rules, as a query string and as a JSON body."""
    for parse in (parse_query, parse_body):
        with contextlib.suppress(RecommenderError):
            asked = parse(raw, RecommendParams)
            asked.rules(asked.num_results or MAX_RESULTS)


INTERACTIONS = (
    b'{"name":"USER_ID","type":"string"},{"name":"ITEM_ID","type":"string"},'
    b'{"name":"TIMESTAMP","type":"long"}'
)
SCHEMA = (
    b'{"type":"record","name":"X","namespace":"com.amazonaws.personalize.schema","fields":[%s],'
    b'"version":"1.0"}'
)

TARGETS: Mapping[str, tuple[Callable[[bytes], None], tuple[bytes, ...]]] = {
    "events": (
        events_of,
        (
            b'{"sessionId":"s","eventList":[{"eventType":"click","itemId":"i","sentAt":1.7e9}]}',
            b'{"sessionId":"s","eventList":[{"eventType":"e","sentAt":17e8,"properties":{"a":1}}]}',
            b'{"erase":"shop","userId":"u","acceptedAt":1.7e9}',
        ),
    ),
    "records": (
        records_of,
        (b'shop/i1\n{"itemId":"i1","properties":{"category":"a|b"},"acceptedAt":1.7e9}',),
    ),
    "filters": (
        filters_of,
        (b'EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("buy") IF CurrentUser.AGE > 5',),
    ),
    "rows": (
        rows_of,
        (
            SCHEMA % b'{"name":"ITEM_ID","type":"string"},{"name":"P","type":["null","float"]}'
            + b"\ni1\n9.5",
            SCHEMA % INTERACTIONS + b"\nu\ni\n1700000000",
        ),
    ),
    "questions": (
        questions_of,
        (
            b"user_id=u%201&filter=brand:acme,b;price<20;!sale&hide=seen:60&pin=i9:1&boost=a:b*1.5",
            b"cap=category:2&exclude=i1,i2&context=DEVICE:phone&properties=NAME&num_results=5",
            b'{"user_id":"u","filter":"EXCLUDE ItemID WHERE Items.PRICE > 5","hide":["purchased"]}',
            b'{"boost":[{"filter":"a:b","factor":2}],"pin":[{"item_id":"i","slot":1}]}',
        ),
    ),
    "tokens": (tokens_of, (b"c0-123-5f0c2a91.p1-2",)),
}
"""The decoders by name, with inputs to begin with."""


def main() -> None:
    """Fuzz the decoder that the command line names."""
    target, seeds = TARGETS[sys.argv[1]]
    folder = Path(sys.argv[2])
    for number, seed in enumerate(seeds):
        (folder / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

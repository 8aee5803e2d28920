"""Import jobs of a running service: rows take effect once, bad rows are reported."""

from __future__ import annotations

import gzip
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.personalize.calls_fixtures import client
from tests.personalize.control_fixtures import INTERACTIONS, schema_text
from tests.personalize.jobs_fixtures import PATIENCE_S, START_S, Service, csv_text, ratings, service
from tests.streams.reading.formats.format_samples_fixtures import WRITTEN

EVENTS = [*INTERACTIONS, "EVENT_TYPE", "EVENT_VALUE:float"]
COLUMNS = [*INTERACTIONS, "EVENT_TYPE", "EVENT_VALUE"]


def new_group(one: Service, name: str) -> str:
    """The ARN of a new dataset group."""
    return str(one.personalize.create_dataset_group(name=name)["datasetGroupArn"])


def test_an_import_takes_effect_once(jobs_service: Service) -> None:
    """All rows are in effect once the job is ACTIVE; a second import changes nothing."""
    one, rows = jobs_service, ratings()
    dataset = one.dataset(new_group(one, "once"), "INTERACTIONS", schema_text(*EVENTS))
    one.put("data", "once/a.csv", csv_text(COLUMNS, rows[:700]).replace("USER_ID", "user_id"))
    # The columns may stand in any case and order, and others beside them.
    one.put("data", "once/b.csv", csv_text(["MORE", *reversed(COLUMNS)], rows[700:]))
    first = one.imported("once-1", dataset, "s3://data/once/")
    counts = one.counts("once")
    second = one.imported("once-2", dataset, "s3://data/once/", importMode="INCREMENTAL")

    assert (first["status"], first.get("failureReason")) == ("ACTIVE", None)
    assert counts["events"] == len(rows)
    assert second["status"] == "ACTIVE"
    assert one.counts("once")["events"] == len(rows)


@pytest.mark.parametrize("name", ["put-events", "ga4", "ga4-parquet", "snowplow-tsv"])
def test_other_formats_take_effect(jobs_service: Service, name: str) -> None:
    """By the format's own columns, even if one has the name of a schema column.

    All formats, at every entrance: tests/streams/reading/formats/test_formats.py.
    """
    one, written = jobs_service, WRITTEN[name]
    group = f"format-{name}"
    schema = schema_text(*INTERACTIONS, "EVENT_TYPE")
    dataset = one.dataset(new_group(one, group), "INTERACTIONS", schema)
    one.s3.put_object(Bucket="data", Key=f"{group}/{written.file}", Body=written.content())
    said = one.imported(group, dataset, f"s3://data/{group}/{written.file}")
    counts = one.counts(group)

    assert (said["status"], said.get("failureReason")) == ("ACTIVE", None)
    assert counts["events"] == len(written.rows())
    assert counts["users"] == len({user for user, *_ in written.rows()})


def test_bad_rows_are_reported(jobs_service: Service) -> None:
    """A few are left out; with missing columns, or many bad rows, nothing is sent."""
    one, rows = jobs_service, ratings()
    dataset = one.dataset(new_group(one, "bad"), "INTERACTIONS", schema_text(*EVENTS))
    few: list[dict[str, Any]] = [dict(row) for row in rows[:500]]
    few[3]["ITEM_ID"] = ""
    few[7]["TIMESTAMP"] = "yesterday"
    many = [row | {"TIMESTAMP": START_S + 10**9} if n % 2 else row for n, row in enumerate(rows)]
    lacking = one.imported(
        "bad-1", dataset, one.put("data", "bad/lacking.csv", "user,item_id\nu,i\n")
    )
    too_many = one.imported(
        "bad-2", dataset, one.put("data", "bad/many.csv", csv_text(COLUMNS, many))
    )
    before = one.counts("bad")
    nothing = one.imported("bad-3", dataset, "s3://data/nowhere/")
    some = one.imported("bad-4", dataset, one.put("data", "bad/few.csv", csv_text(COLUMNS, few)))

    assert (lacking["status"], lacking["failureReason"]) == (
        "CREATE FAILED",
        "Input CSV is missing the following columns:[USER_ID, TIMESTAMP, EVENT_TYPE, EVENT_VALUE]",
    )
    assert too_many["status"] == "CREATE FAILED"
    assert "750 of 1500 rows are bad" in too_many["failureReason"]
    assert "TIMESTAMP: in the future" in too_many["failureReason"]
    assert before == {}
    assert nothing["status"] == "CREATE FAILED"
    assert "no object at s3://data/nowhere/" in nothing["failureReason"]
    assert some["status"] == "ACTIVE"
    assert some["failureReason"].startswith(
        "2 of 500 rows were left out: s3://data/bad/few.csv line 5: ITEM_ID: empty; "
    )
    assert "line 9: TIMESTAMP: not a time: 'yesterday'" in some["failureReason"]
    assert one.counts("bad")["events"] == 498


@pytest.mark.parametrize("packed", ["csv", "jsonl-gz"])
def test_a_killed_runner_leaves_every_row_in_effect_once(
    jobs_service: Service, packed: str
) -> None:
    """Another continues, though late rows are older than the user's history.

    Packed files are read again up to that row.
    """
    one, name = jobs_service, f"killed-{packed}"
    dataset = one.dataset(new_group(one, name), "INTERACTIONS", schema_text(*INTERACTIONS))
    # Few users, newest rows first: their histories cannot tell that an old row was applied.
    rows = [
        {"USER_ID": f"u{n % 7}", "ITEM_ID": f"m{n % 50}", "TIMESTAMP": START_S - n}
        for n in range(12_000)
    ]
    where = one.put("data", f"{name}.csv", csv_text(INTERACTIONS, rows))
    if packed == "jsonl-gz":
        # Two rows stand in each record.
        texts = [json.dumps({"rows": pair}) for pair in zip(rows[::2], rows[1::2], strict=True)]
        where = f"s3://data/{name}/"
        for n in range(2):
            half = "\n".join(texts[n * 3000 : (n + 1) * 3000]).encode()
            one.s3.put_object(
                Bucket="data", Key=f"{name}/part-{n}.jsonl.gz", Body=gzip.compress(half)
            )
    job = one.import_job(name, dataset, where)
    one.stack.wait(
        lambda: one.counts(name).get("events", 0) > 2500, "2500 rows are in effect", PATIENCE_S
    )
    runner = one.stack.processes[-1]
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    under_way = one.import_of(job)()["status"]
    (told,) = json.loads(one.stack.run("status", "--json").stdout)["jobs"]
    text = one.stack.run("status").stdout
    one.stack.start("jobs")
    ended = one.wait_for_end(one.import_of(job))

    assert under_way == "CREATE IN_PROGRESS"
    assert (told["path"], told["status"]) == (f"dataset-import-job/{name}", under_way)
    assert (told["what"], told["known"]) == ("rows sent", len(rows))
    assert 2000 <= told["done"] <= len(rows)
    assert f"{name}: {under_way}, rows sent {told['done']} of {len(rows)}" in text
    assert (ended["status"], ended.get("failureReason")) == ("ACTIVE", None)
    assert one.counts(name)["events"] == len(rows)


def lines_of(rows: list[dict[str, Any]]) -> list[str]:
    """Rows of interactions as an export writes them, sorted."""
    return sorted(f"{row['USER_ID']},{row['ITEM_ID']},{row['TIMESTAMP']}" for row in rows)


def test_a_full_import_replaces_imported_interactions(jobs_service: Service) -> None:
    """Rows of earlier imports that it lacks are gone, live events stay; INCREMENTAL only adds.

    A runner that is killed while it removes rows leaves nothing to do twice, or undone.
    """
    one = jobs_service
    group = new_group(one, "full")
    dataset = one.dataset(group, "INTERACTIONS", schema_text(*INTERACTIONS))
    rows = [
        {"USER_ID": f"u{n % 70}", "ITEM_ID": f"m{n % 50}", "TIMESTAMP": START_S + n}
        for n in range(6000)
    ]
    tracking = one.personalize.create_event_tracker(name="full", datasetGroupArn=group)
    live = [{"USER_ID": "u1", "ITEM_ID": f"live{n}", "TIMESTAMP": START_S + n} for n in range(5)]
    client("personalize-events", one.personalize.meta.endpoint_url).put_events(
        trackingId=tracking["trackingId"],
        userId="u1",
        sessionId="s1",
        eventList=[
            {"eventType": "click", "itemId": row["ITEM_ID"], "sentAt": row["TIMESTAMP"]}
            for row in live
        ],
    )
    first = one.put("data", "full/a.csv", csv_text(INTERACTIONS, rows))
    assert one.imported("full-a", dataset, first)["status"] == "ACTIVE"
    more = [{"USER_ID": "u2", "ITEM_ID": "more", "TIMESTAMP": START_S - 9}]
    added = one.put("data", "full/b.csv", csv_text(INTERACTIONS, more))
    one.imported("full-b", dataset, added, importMode="INCREMENTAL")
    assert one.counts("full")["events"] == 6006

    kept = [*rows[:100], {"USER_ID": "u9", "ITEM_ID": "new", "TIMESTAMP": START_S}]
    job = one.import_job("full-c", dataset, one.put("data", "c.csv", csv_text(INTERACTIONS, kept)))
    one.stack.wait(lambda: one.counts("full")["events"] < 5800, "rows go", PATIENCE_S)
    runner = one.stack.processes[-1]
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    one.stack.start("jobs")
    ended = one.wait_for_end(one.import_of(job))

    assert (ended["status"], ended.get("failureReason")) == ("ACTIVE", None)
    assert one.exported("full-bulk", dataset, "BULK") == lines_of(kept)
    assert one.exported("full-put", dataset, "PUT") == lines_of(live)
    assert one.counts("full")["events"] == len(kept) + len(live)
    # The rows that went may come again.
    assert one.imported("full-d", dataset, first)["status"] == "ACTIVE"
    assert one.exported("full-again", dataset, "ALL") == lines_of([*rows, *live])


def test_a_full_import_replaces_imported_records(jobs_service: Service) -> None:
    """What it lacks loses its record, unless it was put singly since: items, users and actions."""
    one = jobs_service
    group = new_group(one, "records")
    events = client("personalize-events", one.personalize.meta.endpoint_url)
    items = one.dataset(group, "ITEMS", schema_text("ITEM_ID", "COLOR:categorical"))
    users = one.dataset(group, "USERS", schema_text("USER_ID", "CITY:categorical"))
    actions = one.dataset(group, "ACTIONS", schema_text("ACTION_ID", "LEVEL:categorical"))
    table = {
        "items": (items, "ITEM_ID", "COLOR"),
        "users": (users, "USER_ID", "CITY"),
        "actions": (actions, "ACTION_ID", "LEVEL"),
    }
    for kind, (dataset, _, _) in table.items():

        def put(name: str, value: str, kind: str = kind) -> None:
            dataset, _, column = table[kind]
            record = {f"{kind[:-1]}Id": name, "properties": json.dumps({column: value})}
            getattr(events, f"put_{kind}")(datasetArn=dataset, **{kind: [record]})

        def file(name: str, names: str, kind: str = kind) -> str:
            _, key, column = table[kind]
            rows = [{key: each, column: name} for each in names]
            return one.put("data", f"{kind}-{name}.csv", csv_text([key, column], rows))

        put("single", "put")
        one.imported(f"{kind}-1", dataset, file("one", "abcd"))
        put("b", "put")
        one.imported(f"{kind}-2", dataset, file("two", "e"), importMode="INCREMENTAL")
        before = one.exported(f"{kind}-before", dataset, "ALL")
        one.imported(f"{kind}-3", dataset, file("three", "cf"))

        assert before == ["a,one", "b,put", "c,one", "d,one", "e,two", "single,put"]
        assert one.exported(f"{kind}-bulk", dataset, "BULK") == ["c,three", "f,three"]
        assert one.exported(f"{kind}-put", dataset, "PUT") == ["b,put", "single,put"]


def test_a_full_import_replaces_imported_action_interactions(jobs_service: Service) -> None:
    """Those of earlier imports go, what was sent singly stays, and items' interactions do, too."""
    one = jobs_service
    group = new_group(one, "full-actions")
    events = client("personalize-events", one.personalize.meta.endpoint_url)
    columns = ["USER_ID", "ACTION_ID", "TIMESTAMP", "EVENT_TYPE"]
    of_actions = one.dataset(group, "ACTION_INTERACTIONS", schema_text(*columns))
    of_items = one.dataset(group, "INTERACTIONS", schema_text(*INTERACTIONS))
    tracking = one.personalize.describe_dataset(datasetArn=of_actions)["dataset"]["trackingId"]
    events.put_action_interactions(
        trackingId=tracking,
        actionInteractions=[
            {"actionId": "join", "userId": "u1", "sessionId": "s1", "timestamp": START_S,
             "eventType": "TAKEN"}
        ],
    )  # fmt: skip

    def imported(name: str, *actions: str, mode: str = "FULL") -> None:
        rows = [
            {"USER_ID": "u1", "ACTION_ID": action, "TIMESTAMP": START_S + n, "EVENT_TYPE": "VIEWED"}
            for n, action in enumerate(actions, 1)
        ]
        where = one.put("data", f"{name}.csv", csv_text(columns, rows))
        assert one.imported(name, of_actions, where, importMode=mode)["status"] == "ACTIVE"

    items = [{"USER_ID": "u1", "ITEM_ID": "tent", "TIMESTAMP": START_S}]
    one.imported("of-items", of_items, one.put("data", "i.csv", csv_text(INTERACTIONS, items)))
    imported("met-1", "app", "card")
    imported("met-2", "gift", mode="INCREMENTAL")
    before = one.exported("met-before", of_actions, "BULK")
    imported("met-3", "app", "news")

    assert before == [
        f"u1,{action},{START_S + at},VIEWED"
        for action, at in (("app", 1), ("card", 2), ("gift", 1))
    ]
    assert one.exported("met-bulk", of_actions, "BULK") == [
        f"u1,app,{START_S + 1},VIEWED",
        f"u1,news,{START_S + 2},VIEWED",
    ]
    assert one.exported("met-put", of_actions, "PUT") == [f"u1,join,{START_S},TAKEN"]
    assert one.exported("items-kept", of_items, "BULK") == lines_of(items)


@pytest.mark.slow
def test_rows_beyond_the_limits_are_reported(tmp_path: Path) -> None:
    """Rows that a full group refuses become dead letters, which the job counts."""
    with service(tmp_path, max_items=3, max_users=2, partitions=1) as one:
        group = new_group(one, "full")
        interactions = one.dataset(group, "INTERACTIONS", schema_text(*INTERACTIONS))
        users = one.dataset(group, "USERS", schema_text("USER_ID", "CITY:categorical"))
        rows: list[dict[str, Any]] = [
            {"USER_ID": f"u{n % 2}", "ITEM_ID": f"m{n % 5}", "TIMESTAMP": START_S + n}
            for n in range(50)
        ]
        people = [{"USER_ID": f"u{n}", "CITY": "Ulm"} for n in range(5)]
        events = one.imported(
            "full-1", interactions, one.put("data", "full.csv", csv_text(INTERACTIONS, rows))
        )
        again = one.imported("full-2", interactions, "s3://data/full.csv")
        records = one.imported(
            "full-3", users, one.put("data", "users.csv", csv_text(["USER_ID", "CITY"], people))
        )
        counts = one.counts("full")

    assert counts["events"] == 30
    for said in (events, again):
        assert said["status"] == "ACTIVE"
        assert said["failureReason"] == (
            "20 events on further items went beyond RECOMMENDER_MAX_ITEMS and are dead letters"
        )
    assert records["failureReason"] == (
        "3 users went beyond RECOMMENDER_MAX_USERS and are dead letters"
    )

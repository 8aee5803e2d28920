"""The HTTP API: errors, limits, health."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from models.state.catalogue.metadata import put_users
from models.state.users.user_data import users_with_records
from ops.embedded_servers import start_broker
from streams.kafka.topics import ensure_topics
from tests.stack import Servers, Stack, new_stack

BOOST = {"filter": "brand:acme", "factor": 2}
PINS = [{"item_id": f"p{n}", "slot": n} for n in range(1, 27)]


@pytest.mark.any_broker
@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("GET", "/recommend?num_results=0", None, 400, "invalid_request"),
        ("GET", "/recommend?num_results=many", None, 400, "invalid_request"),
        ("GET", "/recommend?colour=red", None, 400, "invalid_request"),
        ("GET", "/recommend?user_id=", None, 400, "invalid_request"),
        ("GET", f"/recommend?user_id={'x' * 257}", None, 400, "invalid_request"),
        ("GET", "/recommend?after=nonsense", None, 400, "invalid_token"),
        ("POST", "/events", b"{bad", 400, "invalid_event"),
        ("POST", "/events", b"\xff\xfe", 400, "invalid_event"),
        ("POST", "/events", {"sessionId": "s", "eventList": []}, 400, "invalid_event"),
        ("POST", "/rank", {"itemIds": []}, 400, "invalid_request"),
        ("POST", "/rank", {"items": ["a"]}, 400, "invalid_request"),
        ("GET", "/recommend?filter=price<cheap", None, 400, "invalid_request"),
        ("GET", "/recommend?boost=brand:acme", None, 400, "invalid_request"),
        ("GET", "/recommend?boost=brand:acme*-1", None, 400, "invalid_request"),
        ("GET", "/recommend?pin=i1:26", None, 400, "invalid_request"),
        ("GET", "/recommend?pin=i1:1,i2:1", None, 400, "invalid_request"),
        ("GET", "/recommend?pin=i1:1&exclude=i1", None, 400, "invalid_request"),
        ("GET", "/recommend?hide=shown", None, 400, "invalid_request"),
        ("GET", "/trending?hide=seen", None, 400, "invalid_request"),
        ("GET", "/recommend?user_id=u&hide=seen&profiling=off", None, 400, "invalid_request"),
        ("POST", "/recommend", b"[", 400, "invalid_request"),
        ("POST", "/recommend", {"exclude": ["x"] * 501}, 400, "invalid_request"),
        ("POST", "/recommend", {"boost": [BOOST] * 11}, 400, "invalid_request"),
        ("POST", "/recommend", {"pin": PINS}, 400, "invalid_request"),
        ("POST", "/recommend", {"properties": ["x"] * 21}, 400, "invalid_request"),
        ("GET", "/recommend?filter=", None, 400, "invalid_request"),
        ("GET", f"/recommend?filter={'x' * 2501}", None, 400, "invalid_request"),
        ("POST", "/recommend", {"colour": "red"}, 400, "invalid_request"),
        ("POST", "/popular", {"filter": "INCLUDE ItemID WHERE"}, 400, "invalid_request"),
        ("POST", "/events", b" " * 70_000, 413, "too_large"),
        ("GET", "/nowhere", None, 404, "not_found"),
        ("PUT", "/events", {"a": 1}, 405, "method_not_allowed"),
    ],
)
def test_errors_have_one_shape(
    running: Stack, method: str, path: str, body: object, status: int, kind: str
) -> None:
    """Every error has a status, a type and a sentence."""
    found, answer = running.ask(method, path, body)

    assert (found, answer["error"]["type"]) == (status, kind)
    assert answer["error"]["message"]


def test_foreign_tracking_id_is_refused(running: Stack) -> None:
    """Events with an unknown tracking id are not accepted."""
    event = {"eventType": "click", "itemId": "x", "sentAt": 1.7e9}
    message = {"trackingId": "other", "sessionId": "s", "eventList": [event]}

    status, answer = running.ask("POST", "/events", message)

    assert status == 400
    assert "other" in answer["error"]["message"]


def test_new_users_and_items_get_trending_items(running: Stack) -> None:
    """Unknown users, sessions and items get an answer."""
    for path in ("/recommend", "/recommend?user_id=nobody", "/similar/unheard-of", "/trending"):
        status, answer = running.ask("GET", path)
        assert (status, answer["recipe"]) == (200, "trending-now")
        assert answer["recommendationId"]


def test_ranking_a_given_list(running: Stack) -> None:
    """Every requested item comes back once, unknown ones last with score 0."""
    after = running.click("sun", session="sky")
    running.recommend(f"after={after}")

    status, answer = running.ask("POST", "/rank", {"itemIds": ["zz", "sun", "sun"], "userId": "u"})

    assert status == 200
    assert [item["itemId"] for item in answer["items"]] == ["sun", "zz"]
    assert answer["items"][1]["score"] == 0


def without_scores(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Items without what changes with the counts of a moment later."""
    return [{name: one[name] for name in one if name != "score"} for one in answer["items"]]


def test_rules_by_query_and_by_body(running: Stack) -> None:
    """One schema for both: a filter, excluded and pinned items, boosts and properties."""
    records = [
        {"itemId": name, "properties": {"BRAND": brand, "PRICE": price}}
        for name, brand, price in (("r1", "acme", 10), ("r2", "acme", 20), ("r3", "zenith", 30))
    ]
    _, put = running.ask("PUT", "/items", {"items": records})
    for name in ("r1", "r2", "r3", "r1", "r2", "r3"):
        after = running.click(name, session="rules", user="ruler")
    running.recommend(f"after={after}")
    running.wait(
        lambda: (
            {"r2", "r3"} <= {one["itemId"] for one in running.ask("GET", "/popular")[1]["items"]}
        ),
        "the top lists are read",
    )
    rules = "filter=brand:acme,zenith;price<=30&exclude=r1&boost=price>20*50&properties=price"
    body = {
        "filter": "brand:acme,zenith;price<=30",
        "exclude": ["r1"],
        "boost": [{"filter": "price>20", "factor": 50}],
        "properties": ["price"],
        "after": put["after"],
    }

    for path in ("/recommend", "/popular", "/trending", "/similar/r1"):
        status, answer = running.ask("GET", f"{path}?{rules}&after={put['after']}")
        by_body = running.ask("POST", path, body)
        assert (status, by_body[0]) == (200, 200)
        assert without_scores(answer) == without_scores(by_body[1])
        found = {item["itemId"]: item["properties"] for item in answer["items"]}
        assert list(found) == ["r3", "r2"]
        assert found["r3"] == {"price": 30}
    _, answer = running.ask("GET", "/recommend?user_id=ruler&hide=seen&pin=r2:1,sun:1")
    assert "slot" in answer["error"]["message"]
    assert running.ask("GET", "/popular?diversity=1.1")[0] == 400
    _, answer = running.ask("GET", "/popular?cap=brand:1&filter=brand:acme,zenith&diversity=0.5")
    assert len(answer["items"]) == 2
    _, answer = running.ask("GET", "/popular?num_results=3&pin=r2:2")
    assert answer["items"][1]["itemId"] == "r2"
    _, answer = running.ask("GET", "/recommend?user_id=ruler&hide=seen")
    assert not {"r1", "r2", "r3"} & {item["itemId"] for item in answer["items"]}
    ranked = {"itemIds": ["r1", "r2", "r3"], "filter": "brand:acme", "userId": "ruler"}
    _, answer = running.ask("POST", "/rank", ranked)
    assert {item["itemId"] for item in answer["items"]} == {"r1", "r2"}


def test_placements(running: Stack) -> None:
    """Saved, tried before, in effect at once where they were saved, rolled back and deleted."""
    for name in ("p1", "p2", "p3", "p1", "p2", "p3"):
        after = running.click(name, session="placed", user="placer")
    rules = [{"exclude": ["p3"]}, {"pin": [{"item_id": "p2", "slot": 1}]}]
    draft = {"recipe": "similar-items", "num_results": 5, "caption": "With it", "rules": rules}
    status, answer = running.ask("PUT", "/placements/product", draft)
    assert (status, answer["version"]) == (200, 1)
    running.recommend(f"after={after}")

    _, answer = running.ask("GET", "/recommend?item_id=p1&placement=product")
    assert answer["placement"] == {"name": "product", "version": 1, "caption": "With it"}
    assert answer["recipe"] == "similar-items"
    assert answer["items"][0]["itemId"] == "p2"
    assert "p3" not in {item["itemId"] for item in answer["items"]}
    _, answer = running.ask("GET", "/similar/p1?placement=product&num_results=1&exclude=p2")
    assert "p2" not in {item["itemId"] for item in answer["items"]}
    ranked = {"itemIds": ["p1", "p3"], "placement": "other"}
    assert running.ask("POST", "/rank", ranked)[0] == 400
    running.ask("PUT", "/placements/other", {"rules": rules})
    _, answer = running.ask("POST", "/rank", ranked)
    assert [item["itemId"] for item in answer["items"]] == ["p1"]

    asked = {"configuration": draft | {"rules": []}, "placement": "product", "item_id": "p1"}
    status, answer = running.ask("POST", "/placements/preview", asked)
    assert status == 200
    assert "p3" not in {item["itemId"] for item in answer["before"]}
    assert "p3" in {item["itemId"] for item in answer["after"]}
    for path in ("/placements/product", "/placements/preview"):
        broken = {"rules": [{"pin": [{"item_id": "a", "slot": 0}]}]}
        body, method = (
            (broken, "PUT")
            if path.endswith("product")
            else (
                {"configuration": broken},
                "POST",
            )
        )
        status, answer = running.ask(method, path, body)
        assert status == 400
        assert "rules[0].pin[0].slot" in answer["error"]["message"]

    running.ask("PUT", "/placements/product", draft | {"caption": "Also"})
    assert running.ask("GET", "/placements/product")[1]["version"] == 2
    assert running.ask("POST", "/placements/product/rollback", {"version": 1})[0] == 200
    assert running.ask("DELETE", "/placements/product")[1]["version"] == 4
    assert running.ask("GET", "/placements/product")[0] == 404
    assert running.ask("GET", "/recommend?placement=product")[0] == 400
    assert running.ask("POST", "/placements/product/rollback", {"version": 4})[0] == 400
    _, answer = running.ask("POST", "/placements/product/rollback", {"version": 3})
    assert (answer["version"], answer["configuration"]["caption"]) == (5, "With it")
    _, answer = running.ask("GET", "/placements/product/history")
    assert [one["version"] for one in answer["placements"]] == [5, 4, 3, 2, 1]
    _, answer = running.ask("GET", "/placements")
    assert {"product", "other"} <= {one["name"] for one in answer["placements"]}


def test_what_was_shown_is_not_shown_again(running: Stack) -> None:
    """The next page of a list, without a cursor."""
    for name in ("s1", "s2", "s3", "s4"):
        after = running.click(name, session="pages", user="pager")
    running.recommend(f"after={after}")
    asked = "/popular?user_id=turner&num_results=2"
    running.wait(lambda: len(running.ask("GET", asked)[1]["items"]) == 2, "items are popular")
    _, answer = running.ask("GET", asked)
    first = {item["itemId"] for item in answer["items"]}

    def following() -> set[str]:
        _, answer = running.ask("GET", f"{asked}&hide=shown:3600")
        return {item["itemId"] for item in answer["items"]}

    running.wait(lambda: not first & following(), "what was shown is hidden")


def test_saved_filters_serve_both_apis(running: Stack) -> None:
    """One made by boto3 is used natively by its name, and a native one by its ARN."""
    records = [
        {"itemId": name, "properties": {"BRAND": brand, "COST": price}}
        for name, brand, price in (("f1", "fa", 10), ("f2", "fa", 20), ("f3", "fb", 30))
    ]
    after = running.ask("PUT", "/items", {"items": records})[1]["after"]
    arn = "arn:aws:personalize:us-east-1:000000000000:"
    boto3 = {"content-type": "application/x-amz-json-1.1"}

    def personalize(operation: str, body: dict[str, Any]) -> Any:
        target = {"x-amz-target": f"AmazonPersonalize.{operation}"}
        return running.ask("POST", "/personalize", body, boto3 | target)

    made = {
        "name": "by-boto3",
        "datasetGroupArn": f"{arn}dataset-group/{running.settings.group}",
        "filterExpression": "INCLUDE ItemID WHERE Items.BRAND IN ($BRANDS)",
    }
    assert personalize("CreateFilter", made)[0] == 200
    asked = f"/popular?filter=by-boto3&filter_values=BRANDS:{quote('fa,fb')}&boost=cheap*5"
    status, answer = running.ask("GET", f"{asked}&after={after}")
    assert (status, answer["error"]["message"]) == (400, "there is no filter 'cheap'")
    status, saved = running.ask("PUT", "/filters/cheap", {"filter": "cost<15"})
    assert (status, saved["filter"]) == (200, "INCLUDE ItemID WHERE Items.cost < 15")

    def found() -> set[str]:
        return {item["itemId"] for item in running.ask("GET", asked)[1]["items"]}

    # The index of properties is as old as RECOMMENDER_CACHE_S at most.
    running.wait(lambda: found() == {"f1", "f2", "f3"}, "in the index")
    _, answer = running.ask("GET", "/popular?filter=by-boto3")
    assert "BRANDS" in answer["error"]["message"]
    _, answer = running.ask("POST", "/rank", {"itemIds": ["f1", "f2"], "filter": "cheap"})
    assert [item["itemId"] for item in answer["items"]] == ["f1"]
    assert running.ask("PUT", "/placements/f", {"rules": [{"filter": "cheap"}]})[0] == 200
    assert running.ask("PUT", "/placements/f", {"rules": [{"filter": "cheaper"}]})[0] == 400
    _, answer = running.ask("GET", "/popular?placement=f")
    assert [item["itemId"] for item in answer["items"]] == ["f1"]
    body = {
        "campaignArn": f"{arn}campaign/default",
        "userId": "u",
        "filterArn": f"{arn}filter/cheap",
    }
    status, answer = running.ask("POST", "/personalize/recommendations", body)
    assert (status, [item["itemId"] for item in answer["itemList"]]) == (200, ["f1"])
    listed = running.ask("GET", "/filters")[1]["filters"]
    assert {"by-boto3", "cheap"} <= {one["name"] for one in listed}
    described = personalize("DescribeFilter", {"filterArn": f"{arn}filter/cheap"})
    assert described[0] == 200

    running.ask("PUT", "/filters/cheap", {"filter": "cost<25"})
    assert running.ask("PUT", "/filters/cheap", {"filter": "cost<many"})[0] == 400
    running.wait(
        lambda: len(running.ask("GET", "/popular?filter=cheap")[1]["items"]) == 2,
        "the filter is replaced",
    )
    assert running.ask("DELETE", "/placements/f")[0] == 200
    assert running.ask("DELETE", "/filters/cheap")[0] == 200
    assert running.ask("DELETE", "/filters/cheap")[0] == 404


def test_saved_filters_take_values_and_are_kept_while_named(running: Stack) -> None:
    """In both groups of APIs; what a placement names is neither deleted nor given parameters."""
    records = [
        {"itemId": name, "properties": {"MAKER": maker, "FEE": fee}}
        for name, maker, fee in (("v1", "va", 10), ("v2", "va", 20), ("v3", "vb", 30))
    ]
    after = running.ask("PUT", "/items", {"items": records})[1]["after"]
    running.ask("GET", f"/items/v1?after={after}")
    arn = "arn:aws:personalize:us-east-1:000000000000:"

    def personalize(operation: str, body: dict[str, Any]) -> Any:
        headers = {
            "content-type": "application/x-amz-json-1.1",
            "x-amz-target": f"AmazonPersonalize.{operation}",
        }
        return running.ask("POST", "/personalize", body, headers)

    parametrized = "INCLUDE ItemID WHERE Items.MAKER IN ($MAKER) AND Items.FEE < $MOST"
    running.ask("PUT", "/filters/by-native", {"filter": parametrized})
    asked = {
        "campaignArn": f"{arn}campaign/default",
        "userId": "u",
        "filterArn": f"{arn}filter/by-native",
        "filterValues": {"MAKER": '"va","vb"', "MOST": "25"},
    }

    def found() -> set[str]:
        _, answer = running.ask("POST", "/personalize/recommendations", asked)
        return {item["itemId"] for item in answer["itemList"]}

    running.wait(lambda: found() == {"v1", "v2"}, "in the index")
    made = {
        "name": "dearer",
        "datasetGroupArn": f"{arn}dataset-group/{running.settings.group}",
        "filterExpression": "INCLUDE ItemID WHERE Items.FEE > CurrentItem.FEE",
    }
    assert personalize("CreateFilter", made)[0] == 200
    _, answer = running.ask("GET", "/similar/v2?filter=dearer")
    assert [item["itemId"] for item in answer["items"]] == ["v3"]

    running.ask("PUT", "/filters/kept", {"filter": "fee<15"})
    running.ask("PUT", "/placements/keeps", {"rules": [{"filter": "kept"}]})
    named = "placement 'keeps' names the filter 'kept': change that first"
    status, answer = running.ask("DELETE", "/filters/kept")
    assert (status, answer["error"]["message"]) == (400, named)
    status, answer = personalize("DeleteFilter", {"filterArn": f"{arn}filter/kept"})
    assert (status, answer["__type"].rpartition("#")[2]) == (400, "ResourceInUseException")
    assert named in str(answer)
    # Rules take filters without values.
    assert running.ask("PUT", "/filters/kept", {"filter": parametrized})[0] == 400
    assert running.ask("DELETE", "/placements/keeps")[0] == 200
    for name in ("kept", "by-native"):
        assert running.ask("DELETE", f"/filters/{name}")[0] == 200


def test_what_rules_name_and_there_is_not(running: Stack) -> None:
    """Is refused by its name and place; of items and properties, which may come later, it warns."""
    records = [{"itemId": "wn1", "properties": {"BRAND": "wa"}}]
    after = running.ask("PUT", "/items", {"items": records})[1]["after"]
    running.ask("GET", f"/items/wn1?after={after}")
    for member, text in (
        (
            {"rules": [{"segment": "nobody", "exclude": ["i1"]}]},
            "segment 'nobody' - at `$.rules[0]",
        ),
        ({"ranker": "best"}, "ranker 'best', but built-in, blend, ranker, ranker-alone - at"),
        ({"rules": [{"filter": "no-such"}]}, "no filter 'no-such' - at `$.rules[0]`"),
        ({"recipe": "magic"}, "magic"),
    ):
        status, answer = running.ask("PUT", "/placements/wn", member)
        assert status == 400
        assert text in answer["error"]["message"]
        status, answer = running.ask("POST", "/placements/preview", {"configuration": member})
        assert status == 400
    running.ask("PUT", "/placements/wn", {"num_results": 3})
    arms: list[Any] = [{"name": "a"}, {"name": "b", "configuration": {"ranker": "best"}}]
    status, answer = running.ask("POST", "/experiments/wn/start", {"placement": "wn", "arms": arms})
    assert status == 400
    assert "in `$.arms[1].configuration`" in answer["error"]["message"]
    # A saved filter may stand in an arm, too.
    running.ask("PUT", "/filters/wn-brand", {"filter": "brand:wa"})
    arms[1]["configuration"] = {"rules": [{"filter": "wn-brand"}]}
    assert running.ask("POST", "/experiments/wn/start", {"placement": "wn", "arms": arms})[0] == 200
    status, answer = running.ask("DELETE", "/filters/wn-brand")
    assert "experiment 'wn'" in answer["error"]["message"]
    status, answer = running.ask("DELETE", "/placements/wn")
    assert "experiment 'wn' is running at 'wn': stop it" in answer["error"]["message"]
    assert running.ask("POST", "/experiments/wn/stop")[0] == 200
    assert running.ask("DELETE", "/filters/wn-brand")[0] == 200

    rules = [
        {"filter": "brnad:wa", "pin": [{"item_id": "wn1", "slot": 1}]},
        {"exclude": ["gone"], "cap": [{"property": "brand", "most": 1}]},
        {"exclude": ["wn1"]},
    ]
    status, saved = running.ask("PUT", "/placements/wn", {"rules": rules})
    assert status == 200
    assert saved["warnings"] == [
        "no item has a property brnad - at `$.rules[0].filter`",
        "nothing is known of 'gone' - at `$.rules[1].exclude`",
        "'wn1' is never shown, for rules[2] excludes it - at `$.rules[0].pin`",
    ]
    asked = {"configuration": {"rules": rules}, "placement": "wn"}
    assert running.ask("POST", "/placements/preview", asked)[1]["warnings"] == saved["warnings"]


def test_a_segment_has_rules_of_its_own(running: Stack) -> None:
    """Who is in it is decided at each question; its users can be read."""
    users = [{"userId": "sg1", "properties": {"TIER": "gold"}}, {"userId": "sg2", "properties": {}}]
    _, put = running.ask("PUT", "/users", {"users": users})
    for name in ("q1", "q2", "q1", "q2"):
        clicked = running.click(name, session="segmented", user="sg2")
    running.recommend(f"after={clicked}")  # only what has events, or a record, can be pinned
    gold = {"rule": 'INCLUDE UserID WHERE Users.TIER = "gold"'}
    assert running.ask("PUT", "/segments/gold", gold)[1]["version"] == 1
    rule = {"segment": "gold", "pin": [{"item_id": "q1", "slot": 1}]}
    running.ask("PUT", "/placements/lounge", {"recipe": "popularity-count", "rules": [rule]})
    after = put["after"]

    _, answer = running.ask("GET", f"/recommend?user_id=sg1&placement=lounge&after={after}")
    assert answer["items"][0]["itemId"] == "q1"
    _, page = running.ask("GET", f"/segments/gold/users?after={after}")
    assert "sg1" in page["userIds"]
    assert "sg2" not in page["userIds"]
    assert "gold" in {one["name"] for one in running.ask("GET", "/segments")[1]["segments"]}
    assert running.ask("PUT", "/segments/gold", {"rule": "INCLUDE"})[0] == 400
    status, answer = running.ask("DELETE", "/segments/gold")
    assert (status, answer["error"]["type"]) == (400, "invalid_request")
    assert "placement 'lounge' names the segment 'gold'" in answer["error"]["message"]
    running.ask("PUT", "/placements/lounge", {"num_results": 3})
    assert running.ask("DELETE", "/segments/gold")[0] == 200
    assert running.ask("GET", "/segments/gold/users")[0] == 404
    # What an earlier version names is gone.
    status, answer = running.ask("POST", "/placements/lounge/rollback", {"version": 1})
    assert (status, "no segment 'gold'" in answer["error"]["message"]) == (400, True)


def test_health_and_metrics(running: Stack) -> None:
    """The operator's routes answer."""
    assert running.ask("GET", "/healthz")[0] == 200
    assert running.ask("GET", "/readyz") == (
        200,
        {"status": "ok", "missing": [], "unreadable": [], "warnings": []},
    )
    status, text = running.ask("GET", "/metrics")
    assert status == 200
    assert b"recommender_requests_total" in text


def test_browsers_of_configured_origins_may_call(running: Stack) -> None:
    """A configured origin is allowed, others are not."""
    shop = {"Origin": "https://shop.example"}
    request = urllib.request.Request(running.url + "/healthz", headers=shop)
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    status, answer = running.ask("GET", "/healthz", headers={"Origin": "https://other.example"})
    assert (status, answer["error"]["type"]) == (403, "origin_not_allowed")


def test_kafka_away(servers: Servers, tmp_path: Path) -> None:
    """Events and erasures are refused, recommendations go on; readiness names Kafka."""
    broker = start_broker(tmp_path)
    one = new_stack(
        Servers(broker.address, servers.redis), f"k{broker.port}", tmp_path, publish_timeout_s=2
    )
    try:
        ensure_topics(one.settings)
        one.start("api")
        one.wait(lambda: one.ask("GET", "/readyz")[0] == 200, "the API is ready")
        one.click("lamp")
        one.stored(lambda store: put_users(store, [("ada", {"AGE": 36})], time.time()))
        broker.stop()

        status, answer = one.ask("GET", "/readyz")
        assert status == 503
        assert [name.split(":")[0] for name in answer["missing"]] == ["kafka"]
        event = {"eventType": "click", "itemId": "lamp", "sentAt": time.time()}
        message = {"sessionId": "s", "eventList": [event]}
        status, answer = one.ask("POST", "/events", message)
        assert (status, answer["error"]["type"]) == (503, "unavailable")
        assert one.ask("GET", "/recommend?user_id=x")[0] == 200
        # An erased user must not come back from Kafka, so the erasure goes to Kafka first.
        status, answer = one.ask("DELETE", "/users/ada")
        assert (status, answer["error"]["type"]) == (503, "unavailable")
        assert one.stored(lambda store: users_with_records(store, ["ada"])) == {"ada"}
    finally:
        one.stop_all()
        broker.stop()


def test_redis_away(stack: Callable[..., Stack]) -> None:
    """Without Redis, cached trending items are served; readiness names Redis."""
    one = stack(cache_s=0.1, publish_timeout_s=2)
    one.start("worker")
    one.start("api")
    one.wait_ready()
    one.wait(lambda: bool(one.recommend("user_id=x")["items"]), "trends are known")

    with one.servers.redis.away():
        status, answer = one.ask("GET", "/readyz")
        assert (status, answer["missing"]) == (503, ["redis"])
        answer = one.recommend("user_id=x")
        assert (answer["level"], answer["items"][0]["itemId"]) == ("cached", "warm")
        assert one.ask("DELETE", "/users/x")[1]["error"]["type"] == "unavailable"
    one.wait(lambda: one.ask("GET", "/readyz")[0] == 200, "Redis is back")
    after = one.click("later", session="s2")
    one.wait(
        lambda: bool(one.recommend(f"after={after}")["freshness"]["afterReached"]),
        "the worker goes on",
    )


def test_what_decides_is_told(running: Stack) -> None:
    """Of the model that serves, and an erasure is receipted."""
    status, told = running.ask("GET", "/transparency")
    assert status == 200
    assert [one["objective"] for one in told["objectives"]] == ["interactions", "purchases"]
    assert sum(one["weight"] for one in told["objectives"][0]["parameters"]) == pytest.approx(
        1, abs=0.01
    )
    status, answer = running.ask("DELETE", "/users/nobody-at-all")
    assert status in {200, 202}
    assert answer["receipt"]["signature"] is None

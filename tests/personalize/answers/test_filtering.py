"""Metadata, filters and promotions, from PutItems to the answer, by boto3."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.personalize.calls_fixtures import ACCOUNT, Caller, campaign, client
from tests.stack import Stack

pytestmark = pytest.mark.any_broker

Clients = Callable[[str], Any]
_numbers = itertools.count()


class Shop:
    """A shop whose user `filly` looked at a film that five other films followed."""

    def __init__(self, running: Stack, clients: Clients) -> None:
        self.running = running
        self.group = f"{ACCOUNT}:dataset-group/{running.settings.group}"
        self.control = clients("personalize")
        self.events = clients("personalize-events")
        self.runtime = clients("personalize-runtime")
        self.films = [f"film-{n}" for n in range(6)]
        for n, film in enumerate(self.films[1:]):
            for session in range(2 + n):
                running.click(
                    self.films[0], session=f"{film}-{session}", user=f"fan-{film}-{session}"
                )
                after = running.click(
                    film, session=f"{film}-{session}", user=f"fan-{film}-{session}"
                )
        running.click(self.films[0], session="filly-1", user="filly")
        after = running.click(self.films[0], session="filly-1", user="filly")
        running.recommend(f"after={after}")

    def put(self, films: dict[str, dict[str, Any]]) -> None:
        """Put metadata of films."""
        self.events.put_items(
            datasetArn=f"{ACCOUNT}:dataset/{self.running.settings.group}/ITEMS",
            items=[
                {"itemId": film, "properties": json.dumps(known)} for film, known in films.items()
            ],
        )

    def filter(self, expression: str) -> str:
        """The ARN of a new filter."""
        name = f"f{next(_numbers)}"
        created = self.control.create_filter(
            name=name, datasetGroupArn=self.group, filterExpression=expression
        )
        return str(created["filterArn"])

    def ask(self, **members: Any) -> list[dict[str, Any]]:
        """Items for `filly`, of this shop's films only."""
        request = {"campaignArn": campaign("default"), "userId": "filly", "numResults": 500}
        answer = self.runtime.get_recommendations(**(request | members))
        return [item for item in answer["itemList"] if item["itemId"] in self.films]

    def names(self, **members: Any) -> list[str]:
        """Their ids."""
        return [item["itemId"] for item in self.ask(**members)]


@pytest.fixture(scope="module")
def shop(running: Stack) -> Shop:
    """The shop, with genres and prices of its films."""
    url = f"{running.url}/personalize"
    made = Shop(running, lambda service: client(service, url))
    made.put(
        {
            film: {"GENRES": "drama|war" if n % 2 else "comedy", "price": 5 * n}
            for n, film in enumerate(made.films)
        }
    )
    made.put({"film-5": {"GENRES": "comedy|war", "price": 25, "NEW": True, "NOTE": None}})
    drama = made.filter('INCLUDE ItemID WHERE Items.GENRES IN ("comedy")')
    running.wait(
        lambda: set(made.names(filterArn=drama)) == {"film-2", "film-4", "film-5"},
        "the metadata is in effect",
    )
    return made


def test_metadata_columns(shop: Shop) -> None:
    """Columns are found in any case, and come as text; unknown values are left out."""
    columns = {"ITEMS": ["GENRES", "PRICE", "new", "NOTE", "UNHEARD_OF"]}

    items = shop.ask(metadataColumns=columns, numResults=50)

    found = {item["itemId"]: item["metadata"] for item in items}
    assert found["film-5"] == {"GENRES": "comedy|war", "PRICE": "25", "new": "true"}
    assert found["film-3"] == {"GENRES": "drama|war", "PRICE": "15"}
    ranked = shop.runtime.get_personalized_ranking(
        campaignArn=campaign("ranking"), userId="filly", inputList=["film-1", "unheard-of"],
        metadataColumns={"ITEMS": ["GENRES"]},
    )["personalizedRanking"]  # fmt: skip
    assert [item["metadata"] for item in ranked] == [{"GENRES": "drama|war"}, {}]


@pytest.mark.parametrize(
    ("expression", "values", "left"),
    [
        ('INCLUDE ItemID WHERE Items.GENRES IN ("drama")', {}, {1, 3}),
        ('EXCLUDE ItemID WHERE Items.GENRES IN ("war")', {}, {2, 4}),
        ("INCLUDE ItemID WHERE Items.PRICE > $LEAST", {"LEAST": "12"}, {3, 4, 5}),
        ("INCLUDE ItemID WHERE Items.GENRES IN ($GENRE)", {"GENRE": '"drama","war"'}, {1, 3, 5}),
        ("INCLUDE ItemID WHERE Items.GENRES IN ($GENRE)", {"GENRE": "drama"}, {1, 3}),
    ],
)
def test_filters_of_items(
    shop: Shop, expression: str, values: dict[str, str], left: set[int]
) -> None:
    """The answer holds allowed items only, in the order that it has without the filter."""
    arn = shop.filter(expression)

    names = shop.names(filterArn=arn, filterValues=values)

    assert set(names) == {f"film-{n}" for n in left}
    assert names == [name for name in shop.names() if name in names]
    similar = shop.names(
        campaignArn=campaign("similar-items"), itemId="film-0", filterArn=arn, filterValues=values
    )
    assert set(similar) <= {f"film-{n}" for n in left}
    ranked = shop.runtime.get_personalized_ranking(
        campaignArn=campaign("ranking"), userId="filly", inputList=shop.films, filterArn=arn,
        filterValues=values,
    )["personalizedRanking"]  # fmt: skip
    assert {item["itemId"] for item in ranked} - {"film-0"} == {f"film-{n}" for n in left}
    assert abs(sum(item["score"] for item in ranked) - 1) < 1e-5


def test_a_filter_fills_the_answer(shop: Shop) -> None:
    """The filter comes before the cut: the answer is as long as requested, if possible."""
    arn = shop.filter('INCLUDE ItemID WHERE Items.GENRES IN ("comedy")')

    assert len(shop.names(filterArn=arn, numResults=2)) == 2


def test_a_purchase_is_excluded_from_the_next_answer(shop: Shop) -> None:
    """Once in effect, it removes the item at once, and for this user only."""
    arn = shop.filter('EXCLUDE ItemID WHERE INTERACTIONS.event_type IN ("purchase")')
    assert "film-4" in shop.names(filterArn=arn)

    message = {
        "userId": "filly-buys",
        "sessionId": "filly-buys",
        "eventList": [
            # Clicks and purchases have topics of their own: seconds say which came first.
            {"eventType": kind, "sentAt": time.time() - age_s, **item}
            for kind, age_s, item in (
                ("click", 3, {"itemId": "film-0"}),
                ("Purchase", 1, {"itemId": "film-4"}),
                ("login", 0, {}),
            )
        ],
    }
    _, answer = shop.running.ask("POST", "/events", message)
    shop.running.recommend(f"after={answer['after']}")

    bought = shop.filter('INCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("purchase")')
    assert "film-4" not in shop.names(userId="filly-buys", filterArn=arn)
    # It is the newest, too, which no other answer has.
    assert shop.names(userId="filly-buys", filterArn=bought) == ["film-4"]
    assert "film-4" not in shop.names(userId="filly-buys")
    assert {"film-3", "film-5"} <= set(shop.names(userId="filly-buys", filterArn=arn))
    assert "film-4" in shop.names(filterArn=arn)


def test_filters_by_user_and_current_item(shop: Shop) -> None:
    """Metadata of the user and of the current item counts; both ids are needed."""
    shop.events.put_users(
        datasetArn=f"{ACCOUNT}:dataset/{shop.running.settings.group}/USERS",
        users=[{"userId": "filly", "properties": '{"AGE": 12}'}],
    )
    young = shop.filter('EXCLUDE ItemID WHERE Items.GENRES IN ("war") IF CurrentUser.AGE < 16')
    cheaper = shop.filter("INCLUDE ItemID WHERE Items.PRICE < CurrentItem.PRICE")

    shop.running.wait(
        lambda: set(shop.names(filterArn=young)) == {"film-2", "film-4"}, "the user is known"
    )
    assert set(shop.names(filterArn=cheaper, itemId="film-3")) == {"film-1", "film-2", "film-0"}
    for members, words in (
        ({"campaignArn": campaign("popularity"), "filterArn": young, "userId": ""}, "a userId"),
        ({"filterArn": cheaper}, "an? itemId"),
    ):
        with pytest.raises(shop.runtime.exceptions.InvalidInputException, match=f"needs {words}"):
            shop.ask(**members)


def test_an_include_needs_its_values(shop: Shop) -> None:
    """A missing parameter of an INCLUDE is invalid input; the error names it."""
    arn = shop.filter("INCLUDE ItemID WHERE Items.GENRES IN ($GENRE)")

    with pytest.raises(shop.runtime.exceptions.InvalidInputException, match="GENRE"):
        shop.ask(filterArn=arn)


def test_filters_that_do_not_fit_are_refused(shop: Shop) -> None:
    """Filters of another group or of users, and unknown filters."""
    other = shop.control.create_dataset_group(name="another-shop")["datasetGroupArn"]
    foreign = shop.control.create_filter(
        name="foreign", datasetGroupArn=other,
        filterExpression='EXCLUDE ItemID WHERE Items.A IN ("b")',
    )["filterArn"]  # fmt: skip
    of_users = shop.filter("EXCLUDE UserID WHERE Users.AGE < 16")

    for arn, words in (
        (foreign, "another dataset group"),
        (of_users, "by UserID, not by ItemID"),
        (campaign("default"), "not the ARN of a filter"),
    ):
        with pytest.raises(shop.runtime.exceptions.InvalidInputException, match=words):
            shop.ask(filterArn=arn)
    shop.control.delete_filter(filterArn=foreign)
    shop.control.delete_dataset_group(datasetGroupArn=other)


def test_promotions(shop: Shop) -> None:
    """Promoted items take their share, in their own order; both filters are independent."""
    war = shop.filter('INCLUDE ItemID WHERE Items.GENRES IN ("drama")')
    comedy = shop.filter("INCLUDE ItemID WHERE Items.GENRES IN ($GENRE)")
    promotion = {"name": "summer", "percentPromotedItems": 34, "filterArn": war}
    request = {
        "campaignArn": campaign("default"),
        "userId": "filly",
        "numResults": 5,
        "filterArn": comedy,
        "filterValues": {"GENRE": '"comedy"'},
        "promotions": [promotion],
    }

    places = set()
    for _ in range(20):
        items = shop.runtime.get_recommendations(**request)["itemList"]
        promoted = [item["itemId"] for item in items if "promotionName" in item]
        rest = [item["itemId"] for item in items if "promotionName" not in item]
        assert promoted == [name for name in shop.names(numResults=500) if name in promoted]
        assert set(promoted) == {"film-1", "film-3"}
        assert set(rest) == {"film-2", "film-4", "film-5"}
        for item in items:
            assert item.get("reason") == (["Promoted item"] if "promotionName" in item else None)
            assert item.get("promotionName") in {"summer", None}
        places.add(tuple("promotionName" in item for item in items))
    assert len(places) > 1


def test_values_without_a_placeholder_are_refused(shop: Shop) -> None:
    """A misspelled name would let everything through; each filter has values of its own."""
    genre = shop.filter("EXCLUDE ItemID WHERE Items.GENRES IN ($GENRE)")
    plain = shop.filter('EXCLUDE ItemID WHERE Items.GENRES IN ("war")')
    promotion = {"filterArn": plain, "percentPromotedItems": 20}
    wrong = {"filterValues": {"genre": '"war"'}}

    for asked in (
        {"filterArn": genre, **wrong},
        {"filterArn": plain, **wrong},
        {"filterArn": genre, "filterValues": {"GENRE": '"war"', "genre": '"war"'}},
        wrong,
        {"filterArn": genre, "promotions": [{**promotion, **wrong}]},
    ):
        message = "filterValues: no parameter 'genre'; (the filter has GENRE|no filter has param)"
        with pytest.raises(shop.runtime.exceptions.InvalidInputException, match=message):
            shop.names(**asked)


@pytest.mark.parametrize(
    ("kind", "properties", "words"),
    [
        ("ITEMS", "no JSON", "not JSON"),
        ("ITEMS", "[1]", "not a JSON object"),
        ("ITEMS", '{"A": ["b"]}', "items.2.member.properties"),
        ("ITEMS", '{"A": {"b": 1}}', "items.2.member.properties"),
        ("USERS", "{}", "not the ARN of a dataset of items"),
    ],
)
def test_bad_records_are_refused_whole(shop: Shop, kind: str, properties: str, words: str) -> None:
    """One bad record refuses the call; the error says where it is."""
    with pytest.raises(shop.events.exceptions.InvalidInputException, match=words):
        shop.events.put_items(
            datasetArn=f"{ACCOUNT}:dataset/{shop.running.settings.group}/{kind}",
            items=[{"itemId": "never-1"}, {"itemId": "never-2", "properties": properties}],
        )


def test_datasets_must_exist(url: str) -> None:
    """A dataset of an unknown group is not found; an ARN of another type is invalid."""
    document = {"items": [{"itemId": "i"}]}
    with Caller(url) as caller:
        missing = caller.call(
            "PutItems", document | {"datasetArn": f"{ACCOUNT}:dataset/none/ITEMS"}
        )
        wrong = caller.call("PutItems", document | {"datasetArn": campaign("default")})
    assert (missing.status, missing.code) == (404, "ResourceNotFoundException")
    assert (wrong.status, wrong.code) == (400, "InvalidInputException")


def test_a_narrow_filter_finds_items_without_events(shop: Shop) -> None:
    """Items of a category outside all candidates are found by their metadata."""
    rare = [f"rare-{n}" for n in range(10)]
    shop.put({item: {"GENRES": "documentary|rare", "price": n} for n, item in enumerate(rare)})
    arn = shop.filter(
        "INCLUDE ItemID WHERE Items.genres IN ($GENRE) AND Items.price < 7"
        ' | EXCLUDE ItemID WHERE Items.itemId IN ("rare-2")'
    )

    def found() -> list[dict[str, Any]]:
        answer: dict[str, Any] = shop.runtime.get_recommendations(
            campaignArn=campaign("default"), userId="filly", numResults=5,
            filterArn=arn, filterValues={"GENRE": '"rare"'},
        )  # fmt: skip
        return list(answer["itemList"])

    allowed = {"rare-0", "rare-1", "rare-3", "rare-4", "rare-5", "rare-6"}
    shop.running.wait(lambda: len(found()) == 5, "the metadata is in effect")
    assert {item["itemId"] for item in found()} < allowed

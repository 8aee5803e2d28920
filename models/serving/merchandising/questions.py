"""Questions for lists of items: how each recipe answers one, by a configuration and by rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from models.errors import InvalidInput, InvalidRequest
from models.ranking.champions import Objective, RankerChoice
from models.serving.answer_options import NO_OPTIONS, AnswerOptions
from models.serving.answers import Answer, RecipeName
from models.serving.merchandising.placements import Configuration, rules_in_force
from models.serving.merchandising.ruled_answers import Ask, answer_by_rules
from models.serving.merchandising.rules import Asker, Rules, joined_rules
from models.serving.merchandising.variants import with_variants_rule
from models.serving.recommender import Recommender
from models.state.histories import History

NEEDS_PROFILING = "needs what the user did or is, which profiling=off forbids"


class Question(NamedTuple):
    """A question for a user, apart from rules; as `Recommender.recommend` takes it.

    Without an objective, that of the configuration counts. `explores` is False for a list without
    exploration slots. `segments` are those of the user, among those that rules are for; `ranker` is
    that of the configuration.
    """

    asker: Asker
    now_s: float
    objective: Objective | None = None
    exclude_purchased: bool = False
    reasons: bool = False
    context: Mapping[str, str] | None = None
    profiling: bool = True
    explores: bool = True
    segments: frozenset[str] = frozenset()
    ranker: RankerChoice | None = None


async def answer_question(
    recommender: Recommender,
    question: Question,
    configuration: Configuration,
    asked: Rules | None,
    *,
    k: int,
    route: RecipeName | None = None,
    rules_at_s: float | None = None,
) -> Answer:
    """The answer of at most k items by a configuration, and by the rules that are asked for too.

    Parameters
    ----------
    route
        The recipe that is asked for, which the configuration may not differ from; None for that of
        the configuration.
    rules_at_s
        Moment for scheduled rules, Unix seconds; None for that of the question.

    Raises
    ------
    InvalidRequest
        The question lacks what a rule or the recipe needs, or the recipes differ.
    """
    if question.objective is None:
        question = question._replace(objective=configuration.objective)
    question = question._replace(ranker=configuration.ranker)
    recipe = configuration.recipe or route or "user-personalization"
    if route is not None and recipe != route:
        raise InvalidRequest(f"the placement has the recipe {recipe}: this route answers {route}")
    recipes = dict.fromkeys((recipe, *configuration.fallbacks))
    if question.asker.item_id is None and len(recipes) > 1:
        recipes.pop("similar-items", None)
    rules = combined_rules(configuration, asked, question, k=k, at_s=rules_at_s)
    rules = await with_variants_rule(recommender, rules, question.now_s)
    asks = [ask_recipe(recommender, one, question, has_rules=rules is not None) for one in recipes]
    return await ruled_answer(recommender, ask_in_turn(asks), rules, question, k=k)


def combined_rules(
    configuration: Configuration,
    asked: Rules | None,
    question: Question,
    *,
    k: int,
    at_s: float | None = None,
) -> Rules | None:
    """Rules that are asked for, then those of the configuration that are in force; None without.

    What these say of the user is left out where nothing of a user may or can be read. `at_s` is the
    moment for scheduled rules, that of the question without.
    """
    if not configuration.rules:
        return asked
    asker = question.asker
    knows_user = question.profiling and (asker.user_id or asker.session_id) is not None
    at_s = question.now_s if at_s is None else at_s
    placed = rules_in_force(configuration, at_s, question.segments if knows_user else ())
    every = [one if knows_user else one.without_user() for one in placed]
    if asked is not None:
        every.insert(0, asked)
    return joined_rules(every, k) if every else None


async def ruled_answer(
    recommender: Recommender,
    ask: Ask,
    rules: Rules | None,
    question: Question,
    *,
    k: int,
    refills: bool = True,
) -> Answer:
    """An answer by its rules; see `answer_by_rules`.

    Raises
    ------
    InvalidRequest
        The question lacks what a rule needs.
    """
    if rules is None:
        return await ask(k, None)
    asker, reads_user = question.asker, rules.reads_user
    if reads_user and not question.profiling:
        raise InvalidRequest(f"hide, and a filter of what the user did, {NEEDS_PROFILING}")
    if not question.profiling:
        asker = asker._replace(user_id=None, session_id=None)
    if reads_user and asker.user_id is None and asker.session_id is None:
        raise InvalidRequest("hide, and a filter of what the user did, need a user or session")
    try:
        return await answer_by_rules(
            recommender, rules, ask, k=k, asker=asker, now_s=question.now_s, refills=refills
        )
    except InvalidInput as error:
        raise InvalidRequest(str(error)) from error


def ask_recipe(
    recommender: Recommender, recipe: RecipeName, question: Question, *, has_rules: bool
) -> Ask:
    """The function that answers a question by a recipe, with so many items.

    With rules, exploration comes after them, and so does the choice among variants of a product.

    Raises
    ------
    InvalidRequest
        The recipe needs an item that the question lacks.
    """
    now_s, asker = question.now_s, question.asker
    options = NO_OPTIONS
    if has_rules or question.ranker is not None:
        options = AnswerOptions(keeps_variants=has_rules, ranker=question.ranker)
    if recipe == "user-personalization":

        async def personalized(k: int, history: History | None = None) -> Answer:
            answer = await recommender.recommend(
                user_id=asker.user_id,
                session_id=asker.session_id,
                item_id=asker.item_id,
                k=k,
                now_s=now_s,
                exclude_purchased=question.exclude_purchased,
                reasons=question.reasons,
                objective=question.objective or "interactions",
                context=question.context,
                profiling=question.profiling,
                history=history,
                explores=question.explores and not has_rules,
                options=options,
            )
            return answer if question.explores else msgspec.structs.replace(answer, to_explore={})

        return personalized
    if recipe == "similar-items":
        item_id = asker.item_id
        if item_id is None:
            raise InvalidRequest("similar-items needs an item_id")

        async def similar(k: int, _: History | None = None) -> Answer:
            return await recommender.similar(item_id, k=k, now_s=now_s, options=options)

        return similar
    top_list = recommender.trending if recipe == "trending-now" else recommender.popular

    async def of_top_list(k: int, _: History | None = None) -> Answer:
        return await top_list(k=k, now_s=now_s, options=options)

    return of_top_list


def ask_in_turn(asks: Sequence[Ask]) -> Ask:
    """The first's answer; where it has too few items, those of the next follow, scored lower."""

    async def ask(k: int, history: History | None = None) -> Answer:
        answer = await asks[0](k, history)
        for other in asks[1:]:
            if len(answer.items) >= k:
                break
            answer = filled(answer, await other(k, history), k)
        return answer

    return ask if len(asks) > 1 else asks[0]


def filled(answer: Answer, other: Answer, k: int) -> Answer:
    """The answer filled up to k items from another, whose scores are scaled below its own.

    >>> from models.serving.answers import Recommendation
    >>> lamp = Answer([Recommendation("lamp", 0.2)], "similar-items", "retrieved")
    >>> both = [Recommendation("lamp", 1.0), Recommendation("rope", 0.5)]
    >>> filled(lamp, Answer(both, "trending-now", "trending"), 3).items[1]
    Recommendation(item_id='rope', score=0.1, ...)
    """
    known = {item.item_id for item in answer.items}
    least = min((item.score for item in answer.items if item.score > 0), default=1.0)
    greatest = max((item.score for item in other.items), default=1.0) or 1.0
    more = [
        msgspec.structs.replace(item, score=least * item.score / greatest)
        for item in other.items
        if item.item_id not in known
    ]
    return msgspec.structs.replace(answer, items=[*answer.items, *more][:k])

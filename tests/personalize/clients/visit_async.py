"""A visit by aioboto3: an event, the answer that it changes, a ranking, errors and lists."""

import asyncio
import json
import sys
import time

import aioboto3  # type: ignore[import-not-found]  # in an environment of its own


async def main(user: str, first: str, second: str, *campaigns: str) -> dict[str, object]:
    """What came of each step."""
    session = aioboto3.Session()
    default, ranking, none = campaigns
    async with (
        session.client("personalize-events") as events,
        session.client("personalize-runtime") as runtime,
        session.client("personalize") as personalize,
    ):
        event = {"eventType": "click", "itemId": first, "sentAt": int(time.time())}
        await events.put_events(trackingId="shop", userId=user, sessionId=user, eventList=[event])
        found: dict[str, object] = {"next": ""}
        deadline_s = time.monotonic() + 60
        while found["next"] != second and time.monotonic() < deadline_s:
            answer = await runtime.get_recommendations(campaignArn=default, userId=user)
            found["next"] = answer["itemList"][0]["itemId"]
        ranked = await runtime.get_personalized_ranking(
            campaignArn=ranking, userId=user, inputList=["zz", second, first]
        )
        found["ranked"] = ranked["personalizedRanking"][0]["itemId"]
        try:
            await runtime.get_recommendations(campaignArn=none, userId=user)
        except runtime.exceptions.ResourceNotFoundException as error:
            found["missing"] = type(error).__name__
        try:
            await personalize.create_schema(name="!", schema="{}")
        except personalize.exceptions.InvalidInputException as error:
            found["invalid"] = type(error).__name__
        for name in ("solutions", "campaigns"):
            pages = personalize.get_paginator(f"list_{name}").paginate(
                PaginationConfig={"PageSize": 1}
            )
            found[name] = len([one async for page in pages for one in page[name]])
        return found


sys.stdout.write(json.dumps(asyncio.run(main(*sys.argv[1:]))))

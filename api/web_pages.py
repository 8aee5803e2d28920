"""The shop at `/`, which shows the recommender at work, the console, and the files that they load.

They are built from `web/` (`make web`), the browser SDK `static/recommender.js` among them.
"""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, FastAPI, Response
from starlette.responses import Response as AnyResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from api.content_policy import OWN_FILES

STATIC = files("api").joinpath("static")
SHOP, CONSOLE = (STATIC.joinpath(name).read_bytes() for name in ("shop.html", "console.html"))

router = APIRouter(include_in_schema=False)


class BuiltFiles(StaticFiles):
    """Files that a browser keeps, and asks each time whether they are still the same."""

    async def get_response(self, path: str, scope: Scope) -> AnyResponse:
        """The file, or 304 to who has it."""
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


def serve_pages(app: FastAPI) -> None:
    """Add the pages and their files to an application."""
    app.include_router(router)
    app.mount("/static", BuiltFiles(directory=str(STATIC)), name="static")


@router.get("/")
async def shop_page() -> Response:
    """The page; links of both are relative, because a proxy may serve them under another path."""
    return Response(SHOP, media_type="text/html", headers=OWN_FILES)


@router.get("/console")
async def console_page() -> Response:
    """The page; what it shows depends on the roles of who is logged in."""
    return Response(CONSOLE, media_type="text/html", headers=OWN_FILES)

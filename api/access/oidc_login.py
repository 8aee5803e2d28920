"""Login with a provider of OpenID Connect: the authorization code flow, with PKCE.

It ends in a session as one that a key begins: the same cookie, roles by the settings.
"""

from __future__ import annotations

import html
from hmac import compare_digest
from typing import TYPE_CHECKING

from fastapi import APIRouter, HTTPException, Request, Response

from api.access.login import begin_session, own_page, page
from api.access.oidc_flow import LoginSecret, Person
from models.api_keys import PERSON, parse_access
from models.errors import Forbidden
from models.settings import Settings

if TYPE_CHECKING:
    from api.access.oidc_provider import OidcProvider

COOKIE = "recommender-login"
LOGIN_S = 600
"""A login that was begun must end within this long."""

MAX_CODE_CHARACTERS = 4096

AGAIN = """\
<p role="alert">{text}</p>
<p><a href="{to}login">Log in again</a></p>
"""

# The browser takes a page that it came to from another site for that site's wish, and sends the new
# cookie only with what this page asks for.
LOGGED_IN = """\
<meta http-equiv="refresh" content="0; url=../../{target}">
<p><a href="../../{target}">Go on</a></p>
"""

LOGGED_OUT = """\
<p>Logged out here. The provider may still know you, and log you in without asking:
<a href="{url}">log out there too</a>.</p>
<p><a href="../../login">Log in</a></p>
"""


router = APIRouter(include_in_schema=False)


@router.get("/login/oidc")
async def begin_login(request: Request) -> Response:
    """Leads a browser to the provider."""
    login = LoginSecret.new()
    url = await _provider(request).authorization_url(login)
    target = own_page(request.query_params.get("next")).removeprefix("./")
    response = Response(status_code=303, headers={"location": url, "cache-control": "no-store"})
    _set_cookie(request, response, f"{login.text}.{target}", LOGIN_S)
    return response


@router.get("/login/oidc/callback")
async def end_login(request: Request) -> Response:
    """Begins a session for the person whom the provider names."""
    settings: Settings = request.app.state.services.settings
    provider, query = _provider(request), request.query_params
    text, _, target = request.cookies.get(_cookie_name(request), "").partition(".")
    login, state = LoginSecret(text), query.get("state", "")
    if not text or not compare_digest(login.state.encode(), state.encode()):
        return _refused(request, "This login was not begun in this browser, or too long ago.")
    if "code" not in query or len(query["code"]) > MAX_CODE_CHARACTERS:
        return _refused(request, f"The provider says: {query.get('error', 'nothing')[:100]}.")
    try:
        person = await provider.person(query["code"], query.get("iss"), login)
    except Forbidden as error:
        return _refused(request, f"Not logged in: {error}.")
    access = access_of(person, settings.oidc_roles)
    if access is None:
        return _refused(request, f"{person.name} has no role here.")
    roles, groups = parse_access(access)
    response = page(LOGGED_IN.format(target=own_page("/" + target)), 200)
    await begin_session(
        request, response, person.name, roles, groups,
        parent=PERSON + person.id, is_secure=_is_secure(request),
    )  # fmt: skip
    _set_cookie(request, response, "", 0)
    return response


@router.get("/login/oidc/logout")
async def logged_out(request: Request) -> Response:
    """Says how to log out of the provider too; the session here has ended."""
    url = await _provider(request).logout_url()
    if url is None:
        return Response(
            status_code=303, headers={"location": "../../login", "cache-control": "no-store"}
        )
    return page(LOGGED_OUT.format(url=html.escape(url)), 200)


def access_of(person: Person, roles: dict[str, str]) -> str | None:
    """The access of a person as `parse_access` takes it; None without any.

    Of several the settings' first counts: roles of one group must not meet another's groups.

    >>> person = Person("1", "ada", ("analysts", "admins"))
    >>> access_of(person, {"admins": "manage@shop", "analysts": "read"})
    'manage@shop'
    """
    return next((access for value, access in roles.items() if value in person.groups), None)


def _provider(request: Request) -> OidcProvider:
    provider: OidcProvider | None = request.app.state.oidc
    if provider is None:
        raise HTTPException(404)
    return provider


def _is_secure(request: Request) -> bool:
    url: str = request.app.state.services.settings.oidc_redirect_url
    return url.startswith("https:")


def _cookie_name(request: Request) -> str:
    return f"__Host-{COOKIE}" if _is_secure(request) else COOKIE


def _set_cookie(request: Request, response: Response, text: str, max_age_s: int) -> None:
    # Lax, not strict: it must come with the browser's return from the provider.
    response.set_cookie(
        _cookie_name(request), text, max_age=max_age_s, path="/", httponly=True, samesite="lax",
        secure=_is_secure(request),
    )  # fmt: skip


def _refused(request: Request, text: str) -> Response:
    response = page(AGAIN.format(text=html.escape(text), to="../../"), 403)
    _set_cookie(request, response, "", 0)
    return response

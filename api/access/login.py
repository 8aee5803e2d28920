"""Login of people in a browser: a key is exchanged for a session, which a cookie names.

A session is a key of its own that ends with the key it was made with, or at its time. Its cookie is
out of reach of scripts, stays on this site, and counts only for requests of the site's own pages.
"""

from __future__ import annotations

import html
import math
from collections.abc import Collection
from urllib.parse import parse_qs, quote, urlsplit

from fastapi import APIRouter, Request, Response

from api.access.access_check import SESSION_COOKIE, AccessCheck, AccessDenied, session_text
from api.access.callers import NOBODY, Caller
from api.access.roles import PAGES
from api.content_policy import inline_policy
from api.server.origins import is_own_page
from models.api_keys import new_key
from models.errors import LimitExceeded
from models.state.clients.redis_errors import unavailable
from models.state.groups import key_store

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>streaming-recommender: login</title>
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 32rem; padding: 2rem; }
input, button { font: inherit; padding: .4rem .6rem; }
input { width: 100%; box-sizing: border-box; margin: .3rem 0 .8rem; }
</style>
<h1>streaming-recommender</h1>
"""

FORM = """\
<p role="alert">{text}</p>
<form method="post" action="login">
<label>API key <input name="key" type="password" required autocomplete="current-password"></label>
<input name="next" type="hidden" value="{target}">
<button>Log in</button>
</form>
"""

PROVIDER = """\
<p><a href="login/oidc?next={target}">Log in with {host}</a></p>
"""

LOGGED_IN = """\
<p>Logged in as {name}: {roles}.</p>
<form method="post" action="logout"><button>Log out</button></form>
"""

HEADERS = {"content-security-policy": inline_policy(PAGE.encode()), "cache-control": "no-store"}

router = APIRouter(include_in_schema=False)


@router.get("/login")
async def login_page(request: Request) -> Response:
    """The form for a key; who is logged in may log out."""
    access: AccessCheck = request.app.state.access
    caller: Caller = request.scope["caller"]
    if access.keys is None:
        return _see("./")
    if caller is NOBODY:
        return _form(request, "", own_page(request.query_params.get("next")))
    roles = ", ".join(sorted(caller.roles))
    return page(LOGGED_IN.format(name=html.escape(caller.name), roles=roles), 200)


@router.post("/login")
async def login(request: Request) -> Response:
    """Begins a session with the key in the form."""
    access: AccessCheck = request.app.state.access
    fields = parse_qs((await request.body()).decode("latin-1"), max_num_fields=4)
    target = own_page(fields.get("next", [""])[0])
    if access.keys is None:
        return _see(target)
    headers = dict(request.scope["headers"])
    if not is_own_page(headers):
        return _form(request, "Log in on this page itself.", target, 403)
    try:
        known = await access.find(fields.get("key", [""])[0].strip().encode("latin-1", "replace"))
    except AccessDenied as denied:
        return _form(request, denied.refusal.message, target, denied.refusal.status)
    if known.origins or known.key.parent:
        return _form(request, "A public key is no login.", target, 403)
    response = _see(target)
    # Behind a proxy with TLS the page's origin tells what the browser sees.
    is_secure = request.url.scheme == "https" or headers.get(b"origin", b"").startswith(b"https:")
    key = known.key
    try:
        await begin_session(
            request, response, key.name, key.roles, key.groups,
            parent=key.id, ends_s=known.expires_s, is_secure=is_secure,
        )  # fmt: skip
    except LimitExceeded:
        return _form(request, "This key was revoked.", target, 401)
    return response


@router.post("/logout")
async def logout(request: Request) -> Response:
    """Ends the session."""
    access: AccessCheck = request.app.state.access
    headers = dict(request.scope["headers"])
    text = session_text(headers)
    response = _see("login")
    if access.keys is None or text is None or not is_own_page(headers):
        return response
    known = access.keys.find(text)
    if known is not None and known.key.parent:
        with unavailable():
            await key_store.remove_key(request.app.state.services.store.redis, known.key.id)
        await access.keys.read_again()
        if known.key.is_of_person:
            response = _see("login/oidc/logout")
    for is_secure in (False, True):
        _set_cookie(response, "", max_age_s=0, is_secure=is_secure)
    return response


async def begin_session(
    request: Request,
    response: Response,
    name: str,
    roles: Collection[str],
    groups: Collection[str],
    *,
    parent: str,
    is_secure: bool,
    ends_s: float = math.inf,
) -> None:
    """Store a session of a browser, and put its cookie into a response.

    Parameters
    ----------
    parent
        As in `ApiKey`: the session ends with the key.
    ends_s
        Unix time at which it ends, if it is earlier than the settings say.

    Raises
    ------
    LimitExceeded
        Its key was revoked.
    Unavailable
        Redis is away.
    """
    services = request.app.state.services
    now_s = services.clock()
    ends_s = min(now_s + services.settings.session_s, ends_s)
    made = new_key(name, roles, groups, now_s=now_s, expires_s=ends_s, parent=parent)
    with unavailable():
        await key_store.add_key(services.store.redis, made.key, now_s=now_s)
    _set_cookie(response, made.text, max_age_s=int(ends_s - now_s), is_secure=is_secure)


def _set_cookie(response: Response, text: str, *, max_age_s: int, is_secure: bool) -> None:
    name = f"__Host-{SESSION_COOKIE}" if is_secure else SESSION_COOKIE
    response.set_cookie(
        name, text, max_age=max_age_s, path="/", httponly=True, samesite="strict", secure=is_secure
    )


def own_page(asked: str | None) -> str:
    """The page to go on with, relative to this one; only the service's own pages are taken."""
    return asked.lstrip("/") or "./" if asked in PAGES else "./"


def _see(target: str) -> Response:
    return Response(status_code=303, headers={"location": target, "cache-control": "no-store"})


def _form(request: Request, text: str, target: str, status: int = 200) -> Response:
    path = html.escape("/" + target.removeprefix("./"))
    body = FORM.format(text=html.escape(text), target=path)
    if issuer := request.app.state.services.settings.oidc_issuer:
        host = html.escape(urlsplit(issuer).netloc)
        body += PROVIDER.format(target=quote(path, safe=""), host=host)
    return page(body, status)


def page(body: str, status: int) -> Response:
    """A page of the login."""
    return Response(f"{PAGE}{body}</html>\n", status, HEADERS, "text/html")

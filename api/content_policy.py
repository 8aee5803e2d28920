"""Content security policies of pages."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping

OWN_FILES: Mapping[str, str] = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cache-control": "no-store",
}
"""Headers of a page whose scripts and styles are files of this server, and never inline."""


def inline_policy(page: bytes) -> str:
    """A policy that allows just the scripts and styles that a page has, by their hashes.

    >>> policy = inline_policy(b"<style>p {}</style><script>go()</script>")
    >>> "script-src 'sha256-" in policy, "unsafe-inline" in policy
    (True, False)
    """
    rules = (f"{kind}-src {' '.join(_hashes(page, kind))}" for kind in ("script", "style"))
    return (
        f"default-src 'none'; connect-src 'self'; img-src data:; {'; '.join(rules)}; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


def _hashes(page: bytes, tag: str) -> list[str]:
    blocks = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), page, re.DOTALL)
    found = [base64.b64encode(hashlib.sha256(block).digest()).decode() for block in blocks]
    return [f"'sha256-{one}'" for one in found] or ["'none'"]

"""Redaction of secrets in output, logs and stored texts."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit

HIDDEN = "***"

# Texts may hold what strangers sent: no pattern begins with a repetition, which would be tried from
# each place of a long word, in time that grows with the square of its length.
# Everything up to the last @ of a word: a password may hold any character that is not encoded.
_IN_URL = re.compile(r"(://[^\s/@:'\"]*:)(?:(?!://)[^\s'\"])*@")
_BEFORE_HOST = re.compile(r"(?<![^\s,'\"])([^\s/@:,'\"]+:)(?!//)[^\s@,'\"]+(@[\w.\[\]-]+:\d)")
_NAMED = re.compile(
    r"((?:password|passwd|passphrase|secret|private[_-]?key|(?:access|api|receipt)[_-]?key)"
    r"(?:['\"]\s*:|['\"]?\s*=)\s*['\"]?)[^\s'\"&,;)}]+",
    re.IGNORECASE,
)
_IN_QUERY = re.compile(r"([?&][\w.-]+=)[^\s'\"&]+")
_SECRET_NAME = re.compile("token|signature|credential|auth|key", re.IGNORECASE)
# botocore logs the headers of a request, as `name:value` and as a mapping to bytes.
_SESSION = re.compile(
    r"((?:security|session)[_-]?token['\"]?\s*[:=]\s*b?['\"]?)[^\s'\"&,;)}]+", re.IGNORECASE
)

_API_KEY = re.compile(r"(srk_[0-9a-f]{12}_)[A-Za-z0-9_-]+")


def redacted(text: str) -> str:
    """The text without passwords: of URLs, of `user:password@host:port`, of `password=…`.

    The user's name, the host, the parameter's name and the id of an API key stay.

    >>> redacted("redis://app:p@ss/w0rd@cache:6379/0 does not answer")
    'redis://app:***@cache:6379/0 does not answer'
    >>> redacted("sasl_password='x' at app:x@kafka:9092, https://b/o?X-Amz-Signature=1f&v=2")
    "sasl_password='***' at app:***@kafka:9092, https://b/o?X-Amz-Signature=***&v=2"
    >>> redacted("no key srk_0123456789ab_q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4k")
    'no key srk_0123456789ab_***'
    """
    if "srk_" in text:
        text = _API_KEY.sub(rf"\1{HIDDEN}", text)
    if "@" in text:
        text = _IN_URL.sub(rf"\1{HIDDEN}@", text)
        text = _BEFORE_HOST.sub(rf"\1{HIDDEN}\2", text)
    if "=" in text or ":" in text:
        # Most texts hold none of the words: errors of refused requests are made often.
        lowered = text.lower()
        if "pass" in lowered or "secret" in lowered or "key" in lowered:
            text = _NAMED.sub(rf"\1{HIDDEN}", text)
        if "?" in text or "&" in text:
            text = _IN_QUERY.sub(_without_value, text)
        if "token" in lowered:
            text = _SESSION.sub(rf"\1{HIDDEN}", text)
    return text


def _without_value(parameter: re.Match[str]) -> str:
    """A parameter of a query, without its value if its name is that of a secret."""
    name: str = parameter[1]
    return f"{name}{HIDDEN}" if _SECRET_NAME.search(name) else parameter[0]


def without_password(url: str) -> str:
    """The URL without password and query, as it may be stored.

    >>> without_password("rediss://app:s3cret@cache:6380/1?password=x")
    'rediss://app@cache:6380/1'
    >>> without_password("redis://:s3cret@cache:6379/0")
    'redis://cache:6379/0'
    """
    parts = urlsplit(url)
    user_info, _, host = parts.netloc.rpartition("@")
    user = user_info.partition(":")[0]
    return urlunsplit((parts.scheme, f"{user}@{host}" if user else host, parts.path, "", ""))


class _Redacted(logging.LogRecord):
    """A log record whose text and traceback hold no secret, whatever formats them."""

    def getMessage(self) -> str:  # noqa: N802  the name in logging
        """The text, with its arguments."""
        if self.exc_info and self.exc_info[0] is not None and not self.exc_text:
            lines = traceback.format_exception(*self.exc_info)
            self.exc_text = redacted("".join(lines).rstrip("\n"))
        return redacted(super().getMessage())


def redact_output() -> None:
    """Keep secrets out of every log record and uncaught traceback of this process."""
    logging.setLogRecordFactory(_Redacted)

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stderr.write(redacted("".join(traceback.format_exception(kind, error, trace))))

    sys.excepthook = show

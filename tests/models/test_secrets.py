"""Secrets never show."""

from __future__ import annotations

import io
import logging

import pytest
from pydantic import ValidationError

from models.errors import Unavailable
from models.secrets import redact_output, redacted, without_password
from models.settings import Settings

pytestmark = pytest.mark.unit

SECRET = "Pl4nted"


@pytest.mark.parametrize(
    "text",
    [
        f"redis://:{SECRET}@host:6379/0",
        f"redis://user:{SECRET}@host:6379/0 and rediss://user:{SECRET}@other:6379/0",
        f"redis://user:a/b#c?d:{SECRET}@x@host:6379",
        f"'rediss://user:{SECRET}@[::1]:6379/0'",
        f"kafka,user:{SECRET}@host:9092",
        f"http://host/path?password={SECRET}&next=1",
        f"https://host/o?X-Amz-Signature={SECRET}&X-Amz-Security-Token={SECRET}",
        f"{{'sasl_plain_password': '{SECRET}', 'ssl_password': \"{SECRET}\"}}",
        f'{{"password": "{SECRET}"}} RECOMMENDER_X_SECRET={SECRET}',
        f"aws_secret_access_key={SECRET}, api_key='{SECRET}'",
        f"host:h\nx-amz-security-token:{SECRET}\n\ncontent-type",
        f"{{'X-Amz-Security-Token': b'{SECRET}', 'Content-Length': b'2'}}",
        f"aws_session_token={SECRET}",
    ],
)
def test_secrets_are_hidden_everywhere(text: str) -> None:
    """In URLs, pairs of names and values, JSON and reprs; also in texts of errors."""
    assert SECRET not in redacted(text)
    assert SECRET not in str(Unavailable(text))
    assert SECRET not in repr(Unavailable(text))


@pytest.mark.parametrize(
    "text",
    [
        "Redis at redis://app@cache:6379/0 does not answer",
        "arn:aws:personalize:us-east-1:000000000000:schema/x",
        "item a:b@c is unknown; a wrong password: see RECOMMENDER_REDIS",
        "after=c0-5 is no token: c0-5",
        "https://host/o?after=c0-5",
    ],
)
def test_other_text_is_unchanged(text: str) -> None:
    """Names, tokens of events and sentences about passwords."""
    assert redacted(text) == text


@pytest.mark.parametrize(
    "word",
    ["a", "?key", "session-", "!", "://a:", "a:", "password ", "password='", "-secret", "&token"],
)
@pytest.mark.parametrize("end", ["", ":", "=", "@h:1", "?key=1"])
def test_long_texts_of_strangers_take_linear_time(word: str, end: str) -> None:
    """With time by the square of the length this would take minutes."""
    assert redacted(f"{word * (300_000 // len(word))}{end}:")


def test_a_stored_url_keeps_user_and_host() -> None:
    """Only the password and the query go."""
    assert without_password(f"redis://u:{SECRET}@h:1/2") == "redis://u@h:1/2"
    assert without_password("redis://h:1/2") == "redis://h:1/2"


def test_settings_never_show_a_secret() -> None:
    """Neither their repr nor an error about a value."""
    settings = Settings(
        redis=f"redis://u:{SECRET}@h:1/0",
        personalize_access_keys={"id": SECRET},
    )
    assert SECRET not in f"{settings!r} {settings}"
    for wrong in (f"redis://u:{SECRET}/x@h:1", f"http://u:{SECRET}@h", f"{SECRET}@h:1"):
        with pytest.raises(ValidationError) as raised:
            Settings(redis=wrong)
        assert SECRET not in str(raised.value)
    with pytest.raises(ValidationError) as raised:
        Settings(kafka=f"u:{SECRET}@h:9092")
    assert SECRET not in str(raised.value)


def test_logs_and_their_tracebacks_never_show_a_secret() -> None:
    """In any logger, handler and formatter."""
    before = logging.getLogRecordFactory()
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    log = logging.getLogger("test-of-secrets")
    log.addHandler(handler)
    log.propagate = False
    try:
        redact_output()
        try:
            raise ValueError(f"redis://u:{SECRET}@h:1")  # noqa: TRY301
        except ValueError as error:
            log.exception("at %s", f"redis://u:{SECRET}@h:1")
            log.warning("%s", error)
    finally:
        logging.setLogRecordFactory(before)
        log.removeHandler(handler)

    assert said.getvalue().count("redis://u:***@h:1") >= 3
    assert SECRET not in said.getvalue()

"""Check that Kafka takes the credentials of the settings, with the reason if it does not.

kafka-python and aiokafka try again after a refusal; kafka-python loses its reason where the server
closes the connection at once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from kafka.errors import KafkaError
from kafka.net.sasl import get_sasl_mechanism

from models.errors import InvalidSetting, Unavailable
from models.servers.listeners import KAFKA_PORT, host_and_port, kafka_connection, kafka_request
from models.settings import Settings
from streams.kafka.connections.security import kafka_python_options

AUTHENTICATE_S = 4.0
"""Longest wait for one answer of a server that looks credentials up."""

_SASL_HANDSHAKE, _SASL_AUTHENTICATE = 17, 36

_accepted: set[tuple[object, ...]] = set()


def are_accepted(settings: Settings) -> bool:
    """True if no credentials are asked for, or a server has taken them in this process."""
    return not settings.kafka_sasl_mechanism or _credentials(settings) in _accepted


def check_credentials(settings: Settings, servers: Iterable[str]) -> None:
    """Show the credentials to the first of these servers that answers; nothing without SASL.

    Raises
    ------
    InvalidSetting
        It refuses them, or the token endpoint does.
    Unavailable
        No server answers, or the token endpoint does not.
    """
    if not settings.kafka_sasl_mechanism:
        return
    options = kafka_python_options(settings)
    for server in servers:
        try:
            refusal = _refusal(*host_and_port(server, KAFKA_PORT), options)
        except (OSError, ValueError, struct.error):
            continue
        if refusal is not None:
            _accepted.discard(_credentials(settings))
            raise InvalidSetting(
                f"Kafka at {settings.kafka} refuses {_explained(settings)} ({refusal})"
            )
        _accepted.add(_credentials(settings))
        return
    raise Unavailable(f"Kafka at {settings.kafka} does not say whether it takes the credentials")


def _refusal(host: str, port: int, options: dict[str, Any]) -> str | None:
    """Reason for which a server refuses; None if it does not."""
    mechanism = get_sasl_mechanism(options["sasl_mechanism"])(host=host, **options)
    with kafka_connection(host, port, options.get("ssl_context")) as connection:
        connection.settimeout(AUTHENTICATE_S)
        name = options["sasl_mechanism"].encode()
        kafka_request(connection, _SASL_HANDSHAKE, 1, struct.pack(">h", len(name)) + name)
        while not mechanism.is_done():
            shown = mechanism.auth_bytes()
            answer = kafka_request(
                connection, _SASL_AUTHENTICATE, 0, struct.pack(">i", len(shown)) + shown
            )
            code, length = struct.unpack_from(">hh", answer)
            text = answer[4 : 4 + max(0, length)].decode(errors="replace")
            if code:
                return text or f"error {code}"
            (size,) = struct.unpack_from(">i", answer, 4 + max(0, length))
            at = 8 + max(0, length)
            try:
                mechanism.receive(answer[at : at + size])
            except (KafkaError, ValueError) as error:
                # A server that knows no password cannot prove that it does (RFC 5802).
                return str(error) or "it does not prove that it knows the password"
    return None if mechanism.is_authenticated() else "without a reason"


def _explained(settings: Settings) -> str:
    """The credentials that were shown, in words, and the settings to look at."""
    mechanism = settings.kafka_sasl_mechanism
    if mechanism == "AWS_MSK_IAM":
        return "the AWS credentials: see their policy and RECOMMENDER_KAFKA_AWS_REGION"
    if mechanism == "OAUTHBEARER":
        return "the token of RECOMMENDER_KAFKA_TOKEN_URL: see RECOMMENDER_KAFKA_TOKEN_SCOPE"
    return (
        f"the user {settings.kafka_username} or the password: see RECOMMENDER_KAFKA_USERNAME and "
        "RECOMMENDER_KAFKA_PASSWORD"
    )


def _credentials(settings: Settings) -> tuple[object, ...]:
    return (
        settings.kafka,
        settings.kafka_sasl_mechanism,
        settings.kafka_username,
        settings.kafka_password,
        settings.kafka_token_url,
        settings.kafka_token_client_id,
        settings.kafka_token_client_secret,
        settings.kafka_token_scope,
        settings.kafka_aws_region,
    )

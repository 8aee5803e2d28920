"""Credentials and TLS of clients of Kafka: the settings as arguments of each client library."""

from __future__ import annotations

import ssl
from typing import Any

from models.servers.tls import client_context
from models.settings import Settings
from streams.kafka.connections.access_tokens import AiokafkaTokens, KafkaPythonTokens, access_tokens


def kafka_python_options(settings: Settings) -> dict[str, Any]:
    """Arguments of kafka-python's clients; raises as `tls_context` does."""
    return _options(settings, KafkaPythonTokens)


def aiokafka_options(settings: Settings) -> dict[str, Any]:
    """Arguments of aiokafka's clients; raises as `tls_context` does."""
    return _options(settings, AiokafkaTokens)


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Context of connections to Kafka; None without TLS.

    Raises
    ------
    InvalidSetting
        A file of the settings cannot be used.
    """
    if not settings.kafka_security_protocol.endswith("ssl"):
        return None
    return client_context(
        "RECOMMENDER_KAFKA",
        settings.kafka_ca_file,
        settings.kafka_certificate_file,
        settings.kafka_key_file,
        settings.kafka_key_password.get_secret_value(),
    )


def wire_mechanism(settings: Settings) -> str:
    """SASL mechanism as it is called on the wire; empty for none.

    >>> wire_mechanism(Settings())
    ''
    """
    # Amazon MSK takes its tokens by this mechanism.
    found = settings.kafka_sasl_mechanism
    return "OAUTHBEARER" if found == "AWS_MSK_IAM" else found


def _options(
    settings: Settings, tokens_of: type[KafkaPythonTokens | AiokafkaTokens]
) -> dict[str, Any]:
    options: dict[str, Any] = {"security_protocol": settings.kafka_security_protocol.upper()}
    context = tls_context(settings)
    if context is not None:
        options["ssl_context"] = context
    mechanism = wire_mechanism(settings)
    if mechanism:
        options["sasl_mechanism"] = mechanism
    if mechanism == "OAUTHBEARER":
        options["sasl_oauth_token_provider"] = tokens_of(
            access_tokens(settings), settings.kafka_token_extensions
        )
    if settings.kafka_username:
        options["sasl_plain_username"] = settings.kafka_username
        options["sasl_plain_password"] = settings.kafka_password.get_secret_value()
    return options

"""Credentials of a Faust app, whose clients are aiokafka's."""

from __future__ import annotations

import faust

from models.settings import Settings
from streams.kafka.connections.security import aiokafka_options


def faust_credentials(settings: Settings) -> faust.auth.Credentials | None:
    """Credentials of a Faust app's clients for Kafka; None where it asks for none.

    Raises
    ------
    InvalidSetting
        A file of the settings cannot be used.

    Examples
    --------
    >>> faust_credentials(Settings())
    """
    options = aiokafka_options(settings)
    context, mechanism = options.get("ssl_context"), options.get("sasl_mechanism")
    if mechanism == "OAUTHBEARER":
        return faust.OAuthCredentials(
            oauth_cb=options["sasl_oauth_token_provider"], ssl_context=context
        )
    if mechanism:
        return faust.SASLCredentials(
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            ssl_context=context,
            mechanism=mechanism,
        )
    return faust.SSLCredentials(context) if context else None

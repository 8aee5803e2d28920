"""Settings of TLS and authentication at Kafka."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from models.errors import InvalidSetting
from models.settings import Settings

pytestmark = pytest.mark.unit

USER = {"kafka_username": "app", "kafka_password": "Pl4nted"}
TOKEN = {
    "kafka_token_url": "https://login.example/token",
    "kafka_token_client_id": "app",
    "kafka_token_client_secret": "Pl4nted",
}


def sasl(mechanism: str, **others: Any) -> dict[str, Any]:
    """Settings of SASL with TLS."""
    return {
        "kafka_security_protocol": "sasl_ssl",
        "kafka_sasl_mechanism": mechanism,
        **others,
    }


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"kafka_security_protocol": "ssl", "kafka_ca_file": "ca.pem"},
        {"kafka_security_protocol": "SSL", "kafka_certificate_file": "cert.pem"},
        sasl("plain", **USER),
        sasl("SCRAM-SHA-256", **USER),
        sasl("SCRAM-SHA-512", **USER, kafka_ca_file="ca.pem"),
        sasl("OAUTHBEARER", **TOKEN, kafka_token_extensions={"logicalCluster": "lkc-1"}),
        sasl("OAUTHBEARER", **TOKEN | {"kafka_token_url": "http://127.0.0.1:9/token"}),
        sasl("AWS_MSK_IAM", kafka_aws_region="eu-west-1"),
    ],
)
def test_settings_that_fit_together(chosen: dict[str, Any]) -> None:
    """Names are taken in any case; no secret is shown."""
    assert "Pl4nted" not in repr(Settings(**chosen))


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"kafka_security_protocol": "sasl_ssl"}, "needs RECOMMENDER_KAFKA_SASL_MECHANISM"),
        ({"kafka_sasl_mechanism": "PLAIN"}, "KAFKA_SASL_MECHANISM does nothing without sasl_"),
        ({"kafka_username": "app"}, "KAFKA_USERNAME does nothing without PLAIN"),
        ({"kafka_ca_file": "ca.pem"}, "KAFKA_CA_FILE does nothing without ssl"),
        (
            {"kafka_security_protocol": "ssl", "kafka_key_file": "key.pem"},
            "KAFKA_KEY_FILE does nothing without a RECOMMENDER_KAFKA_CERTIFICATE_FILE",
        ),
        (sasl("PLAIN", kafka_username="app"), "PLAIN at Kafka needs RECOMMENDER_KAFKA_PASSWORD"),
        (sasl("OAUTHBEARER"), "OAUTHBEARER at Kafka needs RECOMMENDER_KAFKA_TOKEN_URL"),
        (sasl("OAUTHBEARER", **TOKEN, **USER), "KAFKA_USERNAME does nothing without PLAIN"),
        (sasl("AWS_MSK_IAM"), "AWS_MSK_IAM at Kafka needs RECOMMENDER_KAFKA_AWS_REGION"),
        (
            {
                "kafka_security_protocol": "sasl_plaintext",
                "kafka_sasl_mechanism": "AWS_MSK_IAM",
                "kafka_aws_region": "eu-west-1",
            },
            "AWS_MSK_IAM needs RECOMMENDER_KAFKA_SECURITY_PROTOCOL=sasl_ssl",
        ),
    ],
)
def test_what_lacks_or_would_do_nothing_is_refused(chosen: dict[str, Any], said: str) -> None:
    """One sentence names the variable."""
    with pytest.raises(InvalidSetting, match=said) as raised:
        Settings(**chosen)
    assert "Pl4nted" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    ["http://login.example/token", "login.example", "https://app:Pl4nted@login.example/token"],
)
def test_a_secret_is_sent_by_tls_only(url: str) -> None:
    """A token endpoint's URL is https, or on loopback, and holds no secret itself."""
    with pytest.raises(ValidationError) as raised:
        Settings(**sasl("OAUTHBEARER", **TOKEN | {"kafka_token_url": url}))
    assert "Pl4nted" not in str(raised.value)

"""Settings of TLS and authentication at Kafka."""

from __future__ import annotations

from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings

from models.errors import InvalidSetting

PASSWORD_MECHANISMS = frozenset({"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"})
"""SASL mechanisms that take a user and a password."""

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class KafkaSecuritySettings(BaseSettings):
    """Security of the connections to Kafka: certificates, user and password, or a token."""

    kafka_security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        "plaintext",
        description="Kafka's security.protocol: plaintext, ssl (TLS), sasl_plaintext or sasl_ssl.",
    )
    kafka_sasl_mechanism: Literal[
        "", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM"
    ] = Field(
        "",
        description="Kafka's sasl.mechanism: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, or "
        "AWS_MSK_IAM (extra `msk`).",
    )
    kafka_username: str = Field("", description="User for PLAIN and SCRAM.")
    kafka_password: SecretStr = Field(SecretStr(""), description="Its password.")
    kafka_ca_file: str = Field(
        "",
        description="PEM file with the certificates that Kafka's must be signed by; empty: those "
        "that the system trusts.",
    )
    kafka_certificate_file: str = Field(
        "", description="PEM file with the client certificate and its chain; empty: none is shown."
    )
    kafka_key_file: str = Field(
        "", description="PEM file with its private key; empty: it is in the certificate's file."
    )
    kafka_key_password: SecretStr = Field(
        SecretStr(""), description="Password of an encrypted private key."
    )
    kafka_token_url: str = Field(
        "",
        description="Token endpoint for OAUTHBEARER: tokens are asked for there with the client "
        "credentials grant (RFC 6749, 4.4), and renewed before they expire. https, or loopback.",
    )
    kafka_token_client_id: str = Field("", description="Client id at the token endpoint.")
    kafka_token_client_secret: SecretStr = Field(
        SecretStr(""), description="Client secret at the token endpoint."
    )
    kafka_token_scope: str = Field("", description="Scope that is asked for; empty: none.")
    kafka_token_extensions: dict[str, str] = Field(
        {},
        description="SASL extensions sent with a token, such as logicalCluster and identityPoolId.",
    )
    kafka_aws_region: str = Field(
        "",
        pattern=r"^[a-z0-9-]{0,32}$",
        description="Region of the cluster for AWS_MSK_IAM; the credentials are those of the "
        "standard AWS chain.",
    )

    @field_validator("kafka_security_protocol", mode="before")
    @classmethod
    def _lower_protocol(cls, name: object) -> object:
        return name.lower() if isinstance(name, str) else name

    @field_validator("kafka_sasl_mechanism", mode="before")
    @classmethod
    def _upper_mechanism(cls, name: object) -> object:
        return name.upper() if isinstance(name, str) else name

    @field_validator("kafka_token_url")
    @classmethod
    def _safe_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and not (
            parts.hostname
            and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK))
        ):
            raise ValueError("no https:// URL; http:// only on loopback, for a secret is sent")
        if parts.username or parts.password:
            raise ValueError(
                "holds a user: RECOMMENDER_KAFKA_TOKEN_CLIENT_ID and _CLIENT_SECRET are for that"
            )
        return url

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        """Refuse what is missing for the protocol and mechanism, and what would do nothing."""
        protocol, mechanism = self.kafka_security_protocol, self.kafka_sasl_mechanism
        is_tls, is_sasl = protocol.endswith("ssl"), protocol.startswith("sasl")
        if is_sasl and not mechanism:
            raise InvalidSetting(
                f"RECOMMENDER_KAFKA_SECURITY_PROTOCOL={protocol} needs "
                "RECOMMENDER_KAFKA_SASL_MECHANISM"
            )
        for names, wanted, needed, condition in (
            (("sasl_mechanism",), is_sasl, False, "sasl_plaintext or sasl_ssl"),
            (("ca_file", "certificate_file"), is_tls, False, "ssl or sasl_ssl"),
            (
                ("key_file", "key_password"),
                bool(self.kafka_certificate_file),
                False,
                "a RECOMMENDER_KAFKA_CERTIFICATE_FILE",
            ),
            (
                ("username", "password"),
                mechanism in PASSWORD_MECHANISMS,
                True,
                "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
            ),
            (
                ("token_url", "token_client_id", "token_client_secret"),
                mechanism == "OAUTHBEARER",
                True,
                "OAUTHBEARER",
            ),
            (("token_scope", "token_extensions"), mechanism == "OAUTHBEARER", False, "OAUTHBEARER"),
            (("aws_region",), mechanism == "AWS_MSK_IAM", True, "AWS_MSK_IAM"),
        ):
            for name in names:
                value = getattr(self, f"kafka_{name}")
                is_set = bool(value.get_secret_value() if isinstance(value, SecretStr) else value)
                variable = f"RECOMMENDER_KAFKA_{name.upper()}"
                if needed and wanted and not is_set:
                    raise InvalidSetting(f"{mechanism} at Kafka needs {variable}")
                if is_set and not wanted:
                    raise InvalidSetting(f"{variable} does nothing without {condition}")
        if mechanism == "AWS_MSK_IAM" and not is_tls:
            raise InvalidSetting("AWS_MSK_IAM needs RECOMMENDER_KAFKA_SECURITY_PROTOCOL=sasl_ssl")
        return self

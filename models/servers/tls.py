"""TLS contexts of clients, made from files that settings name."""

from __future__ import annotations

import ssl
from pathlib import Path

from models.errors import InvalidSetting


def client_context(
    prefix: str, ca_file: str, certificate_file: str, key_file: str, key_password: str
) -> ssl.SSLContext:
    """A context that verifies the server's certificate and name, with TLS 1.2 or newer.

    Parameters
    ----------
    prefix
        Beginning of the variables that name the files, for errors: `RECOMMENDER_KAFKA`.
    ca_file
        Certificates to trust, as PEM; empty for those of the system.
    certificate_file, key_file, key_password
        Client certificate with its chain, and its private key, as PEM; without a file for the key
        it is in the certificate's.

    Raises
    ------
    InvalidSetting
        A file cannot be read or holds something else; the text names its variable.
    """
    files = {"CA_FILE": ca_file, "CERTIFICATE_FILE": certificate_file, "KEY_FILE": key_file}
    for name, file in files.items():
        try:
            _ = Path(file).read_bytes() if file else b""
        except OSError as error:
            raise InvalidSetting(
                f"{prefix}_{name}: {file} cannot be read ({error.strerror})"
            ) from error
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except ssl.SSLError as error:
        raise InvalidSetting(f"{prefix}_CA_FILE: {ca_file} holds no PEM certificate") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate_file:
        try:
            # Without a password OpenSSL would ask for one at the terminal.
            context.load_cert_chain(certificate_file, key_file or None, lambda: key_password)
        except (ssl.SSLError, ValueError) as error:
            raise InvalidSetting(
                f"{prefix}_CERTIFICATE_FILE: {certificate_file} holds no PEM certificate, or its "
                f"private key is not in {key_file or 'it'}, or {prefix}_KEY_PASSWORD is not the "
                "key's"
            ) from error
    return context


def server_context(certificate_file: str, key_file: str) -> ssl.SSLContext:
    """A context of the HTTP server, with TLS 1.2 or newer.

    Raises
    ------
    InvalidSetting
        A file cannot be read or holds something else.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a password OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certificate_file, key_file or None, lambda: "")
    except (OSError, ValueError) as error:
        raise InvalidSetting(
            f"RECOMMENDER_TLS_CERTIFICATE_FILE: {certificate_file} cannot be read or is no PEM "
            f"certificate, or its private key without a password is not in {key_file or 'it'}"
        ) from error
    return context


def context_of_own_server(certificate_file: str) -> ssl.SSLContext:
    """A context that trusts one server by its own certificate, whatever name it is called by."""
    context = ssl.create_default_context(cafile=certificate_file)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context

"""TLS contexts made from files."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from models.errors import InvalidSetting
from models.servers.tls import client_context

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths of an authority, a certificate, its key in the clear and encrypted, and of no PEM."""
    folder = tmp_path_factory.mktemp("pem")
    authority = trustme.CA()
    cert = authority.issue_cert("client")
    key = serialization.load_pem_private_key(cert.private_key_pem.bytes(), None)
    contents = {
        "ca": authority.cert_pem.bytes(),
        "cert": cert.cert_chain_pems[0].bytes(),
        "key": cert.private_key_pem.bytes(),
        "locked": key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"Pl4nted"),
        ),
        "text": b"no PEM",
    }
    contents["both"] = contents["key"] + contents["cert"]
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: str(folder / name) for name in contents} | {"": "", "absent": str(folder / "no")}


@pytest.mark.parametrize(
    ("ca", "cert", "key", "password"),
    [
        ("", "", "", ""),
        ("ca", "", "", ""),
        ("ca", "cert", "key", ""),
        ("ca", "both", "", ""),
        ("ca", "cert", "locked", "Pl4nted"),
    ],
)
def test_a_context_verifies_the_server(
    files: dict[str, str], ca: str, cert: str, key: str, password: str
) -> None:
    """Its certificate, its name, and no TLS before 1.2; with whatever files."""
    context = client_context("X", files[ca], files[cert], files[key], password)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("ca", "cert", "key", "password", "said"),
    [
        ("absent", "", "", "", "X_CA_FILE: .*no cannot be read"),
        ("text", "", "", "", "X_CA_FILE: .*text holds no PEM certificate"),
        ("", "absent", "", "", "X_CERTIFICATE_FILE: .*cannot be read"),
        ("", "cert", "absent", "", "X_KEY_FILE: .*cannot be read"),
        ("", "cert", "", "", "private key is not in it"),
        ("", "cert", "locked", "", "X_KEY_PASSWORD is not the key's"),
        ("", "cert", "locked", "Pl4nted too", "X_KEY_PASSWORD is not the key's"),
    ],
)
def test_a_wrong_file_is_named(
    files: dict[str, str], ca: str, cert: str, key: str, password: str, said: str
) -> None:
    """With its variable, and without the password."""
    with pytest.raises(InvalidSetting, match=said) as raised:
        client_context("X", files[ca], files[cert], files[key], password)
    assert "Pl4nted" not in str(raised.value)


def test_no_terminal_is_asked_for_a_password(files: dict[str, str], tmp_path: Path) -> None:
    """An empty password of an encrypted key is an error, not a prompt that waits."""
    both = tmp_path / "both"
    both.write_bytes(Path(files["cert"]).read_bytes() + Path(files["locked"]).read_bytes())
    with pytest.raises(InvalidSetting):
        client_context("X", "", str(both), "", "")

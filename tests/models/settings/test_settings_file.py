"""Settings from a file, secrets from files of their own, and where a setting comes from."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from models.errors import InvalidSetting
from models.settings import Settings
from models.settings.effective import as_toml, effective_settings
from models.settings.environment import Environment
from models.settings.secret_files import is_secret
from models.settings.settings_file import SettingsFile

pytestmark = pytest.mark.unit

SECRETS = [name for name, field in Settings.model_fields.items() if is_secret(field)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, an empty one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str, name: str = "recommender.toml") -> None:
    """Write a file."""
    (folder / name).write_text(text)


def test_the_order_of_sources(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Argument, variable, file, default."""
    write(folder, 'group = "file"\ntracking_id = "file"\ntopic_prefix = "file"\n')
    monkeypatch.setenv("RECOMMENDER_GROUP", "variable")
    monkeypatch.setenv("RECOMMENDER_TRACKING_ID", "variable")
    settings = Settings(group="argument")
    found = (settings.group, settings.tracking_id, settings.topic_prefix, settings.partitions)
    assert found == ("argument", "variable", "file", 16)


def test_values_have_the_types_of_toml(folder: Path) -> None:
    """Lists, tables, numbers."""
    write(folder, 'purchase_types = ["buy"]\nport = 80\n[event_weights]\ncart = 3\n')
    settings = Settings()
    assert settings.purchase_types == {"buy"}
    assert settings.event_weights == {"cart": 3.0}
    assert settings.port == 80


def test_another_file_is_named_by_a_variable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it must be there, and the one in the folder is not read."""
    write(folder, 'group = "here"\n')
    write(folder, 'tracking_id = "other"\n', "other.toml")
    monkeypatch.setenv("RECOMMENDER_CONFIG", "other.toml")
    assert (Settings().group, Settings().tracking_id) == ("shop", "other")
    monkeypatch.setenv("RECOMMENDER_CONFIG", "absent.toml")
    with pytest.raises(InvalidSetting, match=r"RECOMMENDER_CONFIG: absent\.toml cannot be read"):
        Settings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kafak = 'h:1'", "has kafak, which is no setting: did you mean kafka?"),
        ("[servers]\nkafka = 'h:1'", "has servers, which is no setting"),
        ("group_file = 'x'", "has group_file, which is no setting"),
        ("kafka = ", "is no TOML"),
        ("kafka_password = 'Pl4nted'\nkafka_password_file = 'x'", "has both kafka_password and"),
        ("kafka_password_file = 'absent'", "kafka_password_file: absent cannot be read"),
        ("kafka_password_file = 5", "kafka_password_file: 5 cannot be read"),
    ],
)
def test_a_wrong_file_is_an_error(folder: Path, text: str, said: str) -> None:
    """With the file's name and the nearest setting, without secrets."""
    write(folder, text)
    with pytest.raises(InvalidSetting) as raised:
        Settings()
    assert "recommender.toml" in str(raised.value)
    assert said in str(raised.value)
    assert "Pl4nted" not in str(raised.value)


def test_a_wrong_value_is_an_error(folder: Path) -> None:
    """Of a setting's own rule, or of two together."""
    write(folder, "partitions = 0")
    with pytest.raises(ValidationError):
        Settings()
    write(folder, 'kafka_username = "app"')
    with pytest.raises(InvalidSetting, match="does nothing without PLAIN"):
        Settings()


SECURED = 'kafka_security_protocol = "sasl_ssl"\nkafka_sasl_mechanism = "PLAIN"\n'


def test_secrets_are_read_from_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a variable and of a key; the last line's end does not count."""
    write(folder, SECURED + 'kafka_username = "app"\nkafka_password_file = "kafka"\n')
    write(folder, " Pl4nted \n", "kafka")
    write(folder, "redis://:Pl4nted@h:1/0\n", "redis")
    write(folder, "AKIA=Pl4nted,B=x\n", "keys")
    monkeypatch.setenv("RECOMMENDER_REDIS_FILE", "redis")
    monkeypatch.setenv("RECOMMENDER_PERSONALIZE_ACCESS_KEYS_FILE", str(folder / "keys"))
    settings = Settings()
    assert settings.kafka_password.get_secret_value() == " Pl4nted "
    assert settings.redis == "redis://:Pl4nted@h:1/0"
    keys = settings.personalize_access_keys
    assert {name: one.get_secret_value() for name, one in keys.items()} == {
        "AKIA": "Pl4nted",
        "B": "x",
    }
    monkeypatch.setenv("RECOMMENDER_REDIS", "redis://h:1/0")
    with pytest.raises(InvalidSetting, match="REDIS and RECOMMENDER_REDIS_FILE are both set"):
        Settings()


def test_a_mapping_of_secrets_from_a_key(folder: Path) -> None:
    """In the forms of a variable."""
    write(folder, 'personalize_access_keys_file = "keys"')
    write(folder, '{"AKIA": "Pl4nted"}', "keys")
    assert [*Settings().personalize_access_keys] == ["AKIA"]


def test_a_file_that_holds_no_secret(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of another kind is not read to its end."""
    monkeypatch.setenv("RECOMMENDER_REDIS_FILE", "/dev/zero")
    with pytest.raises(InvalidSetting, match="RECOMMENDER_REDIS_FILE: /dev/zero is no secret"):
        Settings()
    (folder / "binary").write_bytes(b"\xff")
    monkeypatch.setenv("RECOMMENDER_REDIS_FILE", "binary")
    with pytest.raises(InvalidSetting, match="is no text in UTF-8"):
        Settings()


def test_settings_in_effect_tell_their_origins(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a settings file that is read again, without the secrets."""
    write(folder, SECURED + 'kafka_username = "app"\nkafka_password_file = "kafka"\n')
    write(folder, "Pl4nted", "kafka")
    monkeypatch.setenv("RECOMMENDER_REDIS", "redis://app:Pl4nted@h:1/0")
    monkeypatch.setenv("RECOMMENDER_PERSONALIZE_ACCESS_KEYS", "AKIA=Pl4nted")
    monkeypatch.setenv("RECOMMENDER_CORS_ORIGINS", "https://a.example")
    effective = effective_settings(Settings())
    shown = as_toml(effective)
    assert "Pl4nted" not in shown
    assert 'kafka_password = "***"  # recommender.toml, kafka' in shown
    assert 'redis = "redis://app:***@h:1/0"  # RECOMMENDER_REDIS' in shown
    assert 'personalize_access_keys = { "AKIA" = "***" }' in shown
    assert 'cors_origins = ["https://a.example"]  # RECOMMENDER_CORS_ORIGINS' in shown
    assert "partitions = 16  # default" in shown
    assert tomllib.loads(shown) == {name: one.value for name, one in effective.items()}
    json.dumps({name: one.value for name, one in effective.items()})


@pytest.mark.parametrize("name", SECRETS)
def test_each_secret_may_stand_in_a_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Named by a variable or by the settings' file; both give the same."""
    (folder / "secret").write_text("id=Pl4nted-and-long-enough\n")
    monkeypatch.setenv(f"RECOMMENDER_{name.upper()}_FILE", str(folder / "secret"))
    write(folder, f'{name}_file = "secret"')
    found = Environment(Settings)()[name]
    assert found in ("id=Pl4nted-and-long-enough", {"id": "Pl4nted-and-long-enough"})
    assert SettingsFile(Settings)()[name] == found


def test_what_sounds_secret_is_secret() -> None:
    """Passwords, keys and secrets by their names; `*_file` names a file, which is none."""
    words = ("password", "secret", "receipt_key", "access_keys")
    sounding = {
        name
        for name in Settings.model_fields
        if any(word in name for word in words) and not name.endswith("_file")
    }
    assert sounding <= set(SECRETS)
    assert {"oidc_client_secret", "redis", "redis_replica"} <= set(SECRETS)

"""Provisioning files: their content, and errors by key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import CannotProvision
from streams.provisioning.declaration import MAX_FILE_BYTES, read_declaration
from tests.streams.provisioning.provisioning_fixtures import FILE

pytestmark = pytest.mark.unit


def read(folder: Path, text: str) -> object:
    """The declaration of a file with this text."""
    path = folder / "file.toml"
    path.write_text(text)
    return read_declaration(path)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """Local paths are relative to the file's folder; S3 URLs are unchanged."""
    path = tmp_path / "file.toml"
    path.write_text(FILE.replace('"interactions.csv"', '"s3://theirs/rows.csv"'))
    found = read_declaration(path)

    assert found.datasets["interactions"].schema == str(tmp_path / "interactions.schema.json")
    assert found.datasets["interactions"].source == "s3://theirs/rows.csv"
    assert found.batch is not None
    assert found.batch.input == str(tmp_path / "batch-users.jsonl")


def test_the_account_defaults_to_that_of_the_role(tmp_path: Path) -> None:
    """The policies are for the account of the file, or of its role; without either, for none."""
    path = tmp_path / "file.toml"
    path.write_text('group = "g"\n[role]\narn = "arn:aws:iam::210987654321:role/r"')
    assert read_declaration(path).owner == "210987654321"
    path.write_text('group = "g"')
    with pytest.raises(CannotProvision, match=r"^account"):
        assert read_declaration(path).owner


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('group = "movies"', 'group = "no spaces"', r"^group: .*"),
        ('group = "movies"', "", r"^the file: .*group"),
        ('account = "123456789012"', "", r"^account: needed"),
        ('recipe = "automatic"', "recipe = 3", r"^solutions\[\.\.\.\]\.recipe: "),
        ("[bucket]", "[buckets]", r"^the file: .*buckets"),
        ('name = "movies-data"', 'name = "Movies Data"', r"^bucket\.name: "),
        ('name = "movies-personalize"', "", r"^role: give either"),
        ('[bucket]\nname = "movies-data"', "", r"^datasets\.interactions\.source: .*bucket"),
        ('[campaigns.home]\nsolution = "recommended"', '[campaigns.home]\nsolution = "none"',
         r"^campaigns\.home\.solution: no solutions\.none"),
        ('[batch]\nsolution = "recommended"', '[batch]\nsolution = "none"', r"^batch\.solution"),
        ('filter = "not-seen"', 'filter = "none"', r"^batch\.filter"),
        ("num_results = 10", "num_results = 0", r"^batch\.num_results"),
        ("[datasets.interactions]", "[datasets.actions]", r"^datasets"),
        ("[tracker]", "[tracker", r"file\.toml: "),
    ],
)  # fmt: skip
def test_errors_name_their_key(tmp_path: Path, old: str, new: str, says: str) -> None:
    """Each break of a rule is an error that begins with the key."""
    assert old in FILE
    with pytest.raises(CannotProvision, match=says):
        read(tmp_path, FILE.replace(old, new))


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    """More than the limit is not parsed."""
    with pytest.raises(CannotProvision, match="more than"):
        read(tmp_path, "#" * (MAX_FILE_BYTES + 1))


@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Any content of a file is a declaration or one kind of error."""
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    with pytest.raises(CannotProvision):
        read_declaration(path)

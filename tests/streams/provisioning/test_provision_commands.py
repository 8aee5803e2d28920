"""The commands `provision` and `batch`, as a user runs them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli import main
from streams.provisioning.apply import run
from tests.streams.provisioning.provisioning_fixtures import FILE, Cloud, a_cloud


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """An empty cloud."""
    with a_cloud(tmp_path, monkeypatch) as made:
        monkeypatch.setenv("RECOMMENDER_REDIS", made.settings.redis)
        monkeypatch.setenv("RECOMMENDER_KAFKA", made.settings.kafka)
        yield made


def command(cloud: Cloud, *arguments: str, **options: Any) -> Result:
    """Output of a command about the file."""
    path = cloud.folder / "movies.toml"
    if not path.exists():
        path.write_text(FILE)
    return CliRunner().invoke(main, [arguments[0], str(path), *arguments[1:]], **options)


def test_a_plan_and_a_declined_run_change_nothing(cloud: Cloud) -> None:
    """The plan names every resource; without a yes nothing is created; policies need no AWS."""
    planned = command(cloud, "provision", "--plan")
    refused = command(cloud, "provision", input="n\n")
    documents = command(cloud, "provision", "--policies")

    assert planned.exit_code == 0
    assert "make    campaign home" in planned.output
    assert refused.exit_code == 1
    assert json.loads(documents.output).keys() == {
        "bucketPolicy", "roleTrustPolicy", "rolePermissions",
    }  # fmt: skip
    made = cloud.everything()
    assert (made["groups"], made["buckets"], made["schemas"]) == ([], [], [])


def test_the_provisioned_arns_are_printed(cloud: Cloud) -> None:
    """The ARNs are JSON on standard output, the plan on standard error."""
    known = run(*cloud.context(), cloud.wait_options())

    printed = command(cloud, "provision", "--yes", "--json")
    assert printed.exit_code == 0, printed.output
    assert json.loads(printed.stdout) == known
    assert "nothing to do" in printed.stderr


def test_an_invalid_file_is_one_line_of_error(cloud: Cloud) -> None:
    """An error in the file is one line with its key."""
    path = cloud.folder / "movies.toml"
    path.write_text(FILE.replace("num_results = 10", "num_results = -1"))

    failed = command(cloud, "batch")

    assert failed.exit_code == 1
    assert failed.output.startswith("Error: batch.num_results: ")


def test_a_failed_batch_has_an_exit_code_and_a_record(cloud: Cloud) -> None:
    """A run that cannot be ends with 1, and the history has it with its reason."""
    failed = command(cloud, "batch")
    shown = command(cloud, "batch", "--history", "--json")

    assert failed.exit_code == 1
    (past,) = map(json.loads, shown.stdout.splitlines())
    assert (past["outcome"], past["step"]) == ("failed", "look")
    assert "recommender provision" in past["reason"]

"""The pytest plugin: a session of tests with Amazon Personalize on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.servers import ROOT

PROGRAM = """
import time

import boto3
import pytest


@pytest.fixture(scope="session")
def recommender_personalize_settings():
    return {"RECOMMENDER_TRACKING_ID": "shop-of-tests", "RECOMMENDER_CACHE_S": "0.05"}


def items(service):
    answer = service.client("personalize-runtime").get_recommendations(
        campaignArn="arn:aws:personalize:us-east-1:000000000000:campaign/popularity"
    )
    return [item["itemId"] for item in answer["itemList"]]


def test_events_count(recommender_personalize):
    assert items(recommender_personalize) == []
    recommender_personalize.client("personalize-events").put_events(
        trackingId="shop-of-tests", sessionId="s", userId="u",
        eventList=[{"eventType": "click", "itemId": "tent", "sentAt": time.time()}],
    )
    deadline = time.monotonic() + 60
    while items(recommender_personalize) != ["tent"]:
        assert time.monotonic() < deadline


def test_clients_of_the_program_find_it(recommender_personalize_env):
    groups = boto3.client("personalize").list_dataset_groups()["datasetGroups"]
    assert [one["name"] for one in groups] == ["shop"]
    assert items(recommender_personalize_env) == ["tent"]
    assert recommender_personalize_env.buckets.is_dir()
"""

BROKEN = """
import pytest


@pytest.fixture(scope="session")
def recommender_personalize_settings():
    return {"RECOMMENDER_CACHE_S": "soon"}


def test_nothing(recommender_personalize):
    pass
"""


def run(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run a file of tests in a session of its own, with this plugin alone."""
    (folder / "test_program.py").write_text(program)
    variables = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "RECOMMENDER_PORT": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "ops.pytest_plugin", "-p", "no:cacheprovider",
         "--rootdir", str(folder), f"--basetemp={folder}/base", "test_program.py"],
        cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip


def test_a_session_has_a_service_of_its_own(tmp_path: Path) -> None:
    """It starts once, has its own settings, and is gone with the session."""
    ended = run(tmp_path, PROGRAM)

    assert "2 passed" in ended.stdout, ended.stdout
    log = next(tmp_path.glob("base/recommender*/recommender.log")).read_text()
    assert "api: stopped" in log
    assert not list(tmp_path.glob("base/recommender*/data/servers.json"))


def test_a_service_that_does_not_start_says_why(tmp_path: Path) -> None:
    """The error of the fixture has the end of its log."""
    ended = run(tmp_path, BROKEN)

    assert "RuntimeError: recommender up has ended" in ended.stdout
    assert "RECOMMENDER_CACHE_S" in ended.stdout


def test_the_package_registers_it() -> None:
    """By an entry point, under the name of its fixture."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["entry-points"]["pytest11"] == {"recommender_personalize": "ops.pytest_plugin"}

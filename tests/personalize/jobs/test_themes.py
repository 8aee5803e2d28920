"""Batch jobs that give similar items a theme."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from models.errors import InvalidSetting
from models.personalize.batches import themes
from models.personalize.batches.themes import ThemedItem, background, theme_of, title_writer
from models.state.catalogue.metadata import put_items
from tests.personalize.control_fixtures import ROLE, Control
from tests.personalize.jobs.test_runner import events, run_next, runner_of

KINDS = (("tent", "Outdoor"), ("pan", "Kitchen"), ("novel", "Books"))
"""Of the items `i<n>` by the remainder of n, which are taken together."""


async def themed(
    control: Control, folder: Path, column: str, *lines: str, **more: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The output lines of a job with themes, and its description."""
    group, runner = await control.group(), runner_of(control, folder)
    await events(control, "g", 60, 20)
    await control.dataset(group, "ITEM_ID", "NAME", "LABEL", "GENRE:categorical", kind="ITEMS")
    items = [
        (f"i{n}", {"NAME": f"No {n} {KINDS[n % 3][0]}", "LABEL": f"L{n}", "GENRE": KINDS[n % 3][1]})
        for n in range(60)
    ]
    await put_items(control.context.tenants.store("g"), items, control.now_s)
    (folder / "data" / "in.json").write_text("\n".join(lines))
    version = await control.version(await control.solution(group, "s", "aws-similar-items"))
    created = await control(
        "CreateBatchInferenceJob",
        jobName="themes",
        solutionVersionArn=version,
        numResults=6,
        roleArn=ROLE,
        batchInferenceJobMode="THEME_GENERATION",
        themeGenerationConfig={"fieldsForThemeGeneration": {"itemName": column}},
        jobInput={"s3DataSource": {"path": "s3://data/in.json"}},
        jobOutput={"s3DataDestination": {"path": "s3://results/"}},
        **more,
    )
    await run_next(control, runner)
    described = await control("DescribeBatchInferenceJob", **created)
    written = folder / "results" / "in.json.out"
    text = written.read_text() if written.exists() else ""
    return [json.loads(line) for line in text.splitlines()], described["batchInferenceJob"]


@pytest.mark.parametrize(("column", "titles"), [("NAME", "tp"), ("LABEL", "OK")])
async def test_similar_items_get_a_theme(
    control: Control, tmp_path: Path, column: str, titles: str
) -> None:
    """Its title is of their names first; each item has its relevance, the best one first."""
    (tents, pans), described = await themed(
        control, tmp_path, column, '{"itemId": "i0"}', '{"itemId": "i1"}'
    )

    assert described["status"] == "ACTIVE"
    assert described["batchInferenceJobMode"] == "THEME_GENERATION"
    assert set(tents) == {"input", "output"}
    for line, kind, first in zip((tents, pans), KINDS, titles, strict=False):
        output = line["output"]
        assert set(output) == {"recommendedItems", "theme", "itemsThemeRelevanceScores"}
        scores = output["itemsThemeRelevanceScores"]
        assert output["theme"].lower().startswith((kind[0], kind[1].lower()))
        assert output["theme"][0] == first.upper()
        assert len(scores) == len(output["recommendedItems"]) == 6
        assert scores == sorted(scores, reverse=True)
        by_item = dict(zip(output["recommendedItems"], scores, strict=True))
        own = [score for name, score in by_item.items() if int(name[1:]) % 3 == KINDS.index(kind)]
        others = [score for score in by_item.values() if score not in own]
        assert own
        assert min(own) >= 0.1
        assert not others or min(own) > max(others)


async def test_lines_without_an_answer_have_no_output(control: Control, tmp_path: Path) -> None:
    """As programs expect that read themes; an unknown item has what is popular."""
    (bad, unknown), _ = await themed(control, tmp_path, "NAME", "nonsense", '{"itemId": "none"}')

    assert set(bad) == {"input", "error"}
    assert unknown["output"]["recommendedItems"]


async def test_a_file_names_100_items_at_most(control: Control, tmp_path: Path) -> None:
    """With more the job fails."""
    _, described = await themed(control, tmp_path, "NAME", *['{"itemId": "i0"}'] * 101)

    assert described["status"] == "CREATE FAILED"
    assert "may name 100 items" in described["failureReason"]


def shout(items: Any) -> str:
    """A title for tests."""
    return f"  All about\n{items[0].name.upper()} " + "x" * 100


def test_titles_may_come_from_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name of its entry point; they are cut to their length."""
    found = EntryPoint("shout", f"{__name__}:shout", themes.ENTRY_POINTS)
    asked = []

    def entry_points(**by: str) -> list[EntryPoint]:
        asked.append(by)
        return [found] if by["name"] == "shout" else []

    monkeypatch.setattr(themes, "entry_points", entry_points)
    items = [ThemedItem("a", "tent"), ThemedItem("b", "green tent")]
    theme = theme_of(items[0], items[1:], background(items), title_writer("shout"))

    assert theme.title.startswith("All about TENT xxx")
    assert len(theme.title) == themes.MAX_TITLE
    assert asked == [{"group": themes.ENTRY_POINTS, "name": "shout"}]
    assert title_writer("") is None
    with pytest.raises(InvalidSetting, match="no package has 'other'"):
        title_writer("other")


@pytest.mark.parametrize(
    ("names", "title"),
    [
        (["Running shoes", "Trail running shoes", "Blue running shoes"], "Running shoes"),
        (["小さいテント", "テント|赤", "テント|青"], "テント"),
        ([""], ""),
        (["Lamp"], "Lamp"),
    ],
)
def test_titles(names: list[str], title: str) -> None:
    """Pairs of words before single ones; without texts there is no title."""
    items = [ThemedItem(f"i{n}", name) for n, name in enumerate(names)]
    catalogue = [*items, *(ThemedItem(f"x{n}", f"Something {n} else") for n in range(50))]

    assert theme_of(items[0], items[1:], background(catalogue)).title == title

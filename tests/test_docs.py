"""The documents match the code."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import click
import pytest

from api.app import create_app
from cli import main
from models.settings import Settings
from models.state.clients.client import connect
from models.state.store import Store
from models.state.users.user_exports import EXPORTED
from models.tokens import TopicKind
from ops.settings_table import settings_table
from streams.kafka.topics import Topics
from tests.api_server import FakePublisher

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = ROOT / "docs"


def test_settings_table_is_current() -> None:
    """docs/settings.md lists every setting with its default and meaning."""
    expected = f"<!-- settings -->\n{settings_table()}\n<!-- /settings -->"

    assert expected in (DOCS / "settings.md").read_text()


def test_commands_are_documented() -> None:
    """docs/commands.md names every command, and every command has a help text."""
    commands = (DOCS / "commands.md").read_text()
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert name in commands
        assert command is not None
        assert command.help
        if isinstance(command, click.Group):
            assert all(sub.help for sub in command.commands.values())


def test_entries_of_the_audit_log_are_documented() -> None:
    """docs/security.md names every entry that the API's routes and the commands write."""
    written = re.compile(r'(?:record|audit|audit_reading)\(\s*[\w.]+, "(\w+)"')
    found = {
        action
        for folder in ("api/routes", "cli")
        for path in (ROOT / folder).rglob("*.py")
        for action in written.findall(path.read_text())
    }
    assert len(found) > 15
    security = (DOCS / "security.md").read_text()
    assert {action for action in found if f"`{action}`" not in security} == set()


def test_routes_and_errors_are_documented() -> None:
    """docs/http-api.md names every route and every type of error."""
    reference = (DOCS / "http-api.md").read_text()

    async def nothing(*_: object) -> str:
        return ""

    async def empty() -> dict[TopicKind, str]:
        return {}

    async def none() -> list[str]:
        return []

    settings = Settings()
    store = Store(connect("redis://localhost"), settings)
    app = create_app(settings, store, FakePublisher(nothing, nothing, empty, none))
    for path, methods in app.openapi()["paths"].items():
        assert path in reference
        for method in methods.values():
            assert "default" in method["responses"]
    source = "".join(path.read_text() for path in (ROOT / "api").rglob("*.py"))
    for kind in set(re.findall(r'[45]\d{2}, "([a-z_]+)"', source)):
        assert f"`{kind}`" in reference


def test_python_blocks_compile() -> None:
    """Python in the documents is Python."""
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
            ast.parse(block)


def test_json_in_commands_parses() -> None:
    """Bodies of the README's curl commands are JSON."""
    bodies = re.findall(r"-d '(.*?)'", README)

    assert bodies
    assert all(json.loads(body) for body in bodies)


def test_the_readme_is_read_in_three_minutes() -> None:
    """At 300 words a minute, without tables and blocks of code; more of it belongs into docs/."""
    text = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    prose = [line for line in text.splitlines() if not line.startswith(("|", "!["))]
    words = re.sub(r"\]\([^)]*\)", "", "\n".join(prose)).split()

    assert 500 < len(words) <= 900


def test_links_lead_somewhere() -> None:
    """Targets of relative links exist, headings on their pages included."""
    pages = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")]
    for page in (*pages, *DOCS.rglob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
            path, _, heading = target.partition("#")
            linked = page.parent / path if path else page
            assert linked.exists(), f"{page.name}: {target}"
            if heading:
                assert heading in _headings(linked.read_text()), f"{page.name}: {target}"


def _headings(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_each_decision_has_a_number_of_its_own() -> None:
    """Its file begins with it, and so does its title."""
    files = sorted((DOCS / "decisions").glob("*.md"))
    numbers = [int(file.name[:4]) for file in files]
    assert len(set(numbers)) == len(numbers) > 40
    assert [file.read_text().split(".")[0] for file in files] == [f"# {n}" for n in numbers]


def test_the_example_of_quality_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python example in docs/quality.md gives the documented result."""
    text = (ROOT / "docs" / "quality.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    printed: list[object] = []

    exec(compile(example, "docs/quality.md", "exec"), {"print": printed.append})  # noqa: S102

    assert [[name for name, _ in found] for found in printed if isinstance(found, list)] == [
        ["stove"]
    ]


def test_the_example_of_exploration_runs() -> None:
    """The Python example in docs/exploration.md prints what stands below it."""
    text = (ROOT / "docs" / "exploration.md").read_text()
    ((example, printed),) = re.findall(r"```python\n(.*?)```.*?```\n(.*?)```", text, re.DOTALL)
    lines: list[str] = []

    def keep(*values: object) -> None:
        lines.append(" ".join(map(str, values)))

    exec(compile(example, "docs/exploration.md", "exec"), {"print": keep})  # noqa: S102

    assert "\n".join(lines) == printed.strip()


def test_retention_is_documented() -> None:
    """docs/operations.md has each topic, and each family of keys that holds something of users."""
    text = (DOCS / "operations.md").read_text().partition("\n## Retention\n")[2]
    section = text.partition("\n## ")[0]
    topics = Topics()
    for name in (*topics.read, topics.dead_letters, topics.audit, *EXPORTED):
        assert f"`{name}`" in section, name

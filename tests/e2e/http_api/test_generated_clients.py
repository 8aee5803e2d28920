"""Generated clients of the OpenAPI document send events and get recommendations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.openapi_document import document
from tests.personalize.clients.other_clients import parsed, run
from tests.servers import require
from tests.stack import Stack
from tests.typescript import typescript

PYTHON = """\
import json, sys, time
from client import Client
from client.api.default import put_events, recommend
from client.models import Accepted, Error, Event, PutEvents, Recommendations

url, user = sys.argv[1:]
with Client(base_url=url) as client:
    event = Event(event_type="click", item_id="generated-tea", sent_at=time.time())
    sent = put_events.sync(client=client, body=PutEvents("py", [event], user_id=user))
    assert isinstance(sent, Accepted), sent
    wrong = put_events.sync(client=client, body=PutEvents("", []))
    assert isinstance(wrong, Error), wrong
    answer = recommend.sync(client=client, user_id=user, after=sent.after, reasons=True)
    assert isinstance(answer, Recommendations), answer
    assert answer.freshness.after_reached is True
    print(json.dumps([wrong.error.type_, [item.item_id for item in answer.items]]))
"""

TYPESCRIPT = """\
import createClient from "openapi-fetch";
import type { components, paths } from "./api";

declare const process: { argv: string[] };
type Recommendations = components["schemas"]["Recommendations"];

async function main(): Promise<void> {
  const [url, user] = process.argv.slice(2);
  const client = createClient<paths>({ baseUrl: url });
  const sent = await client.POST("/events", {
    body: {
      sessionId: "ts",
      userId: user,
      eventList: [{ eventType: "click", itemId: "generated-tea", sentAt: Date.now() }],
    },
  });
  if (!sent.data) throw new Error(sent.error.error.message);
  const wrong = await client.POST("/events", { body: { sessionId: "", eventList: [] } });
  const kind: string | undefined = wrong.error?.error.type;
  const answer = await client.GET("/recommend", {
    params: { query: { user_id: user, after: sent.data.after, objective: "interactions" } },
  });
  if (!answer.data) throw new Error(answer.error.error.message);
  const found: Recommendations = answer.data;
  if (found.freshness.afterReached !== true) throw new Error("not in effect");
  console.log(JSON.stringify([kind, found.items.map((item) => item.itemId)]));
}

void main();
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The OpenAPI document in a file."""
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(document()))
    return path


def follow(running: Stack) -> None:
    """Send sessions that go from the item that a client clicks on to another."""
    for n in range(3):
        running.click("generated-tea", session=f"generated-{n}")
        after = running.click("generated-cup", session=f"generated-{n}")
    running.recommend(f"after={after}")


def test_python(running: Stack, written: Path, tmp_path: Path) -> None:
    """openapi-python-client parses every operation, and its client works."""
    generated = subprocess.run(
        [str(Path(sys.executable).with_name("openapi-python-client")), "generate", "--meta", "none",
         "--fail-on-warning", "--path", str(written), "--output-path", str(tmp_path / "client")],
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert generated.returncode == 0, generated.stdout + generated.stderr
    (tmp_path / "use.py").write_text(PYTHON)
    follow(running)

    used = run(
        [sys.executable, str(tmp_path / "use.py"), running.url, "py-user"],
        {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)},
    )

    assert parsed(used) == ["invalid_event", parsed(used)[1]]
    assert parsed(used)[1][0] == "generated-cup"


@pytest.mark.slow
def test_typescript(running: Stack, written: Path, tmp_path: Path) -> None:
    """openapi-typescript's types compile strictly, and a client with them works."""
    require("node", "npm")
    packages = typescript()
    (tmp_path / "node_modules").symlink_to(packages / "node_modules")
    (tmp_path / "use.ts").write_text(TYPESCRIPT)
    variables = {"PATH": os.environ["PATH"]}
    tools = packages / "node_modules" / ".bin"
    made = run([str(tools / "openapi-typescript"), str(written), "-o", str(tmp_path / "api.d.ts")],
               variables)  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    compiled = run(
        [str(tools / "tsc"), "--strict", "--skipLibCheck", "--target", "es2022", "--module",
         "commonjs", "--moduleResolution", "node10", "--lib", "es2022,dom",
         str(tmp_path / "use.ts")],
        variables,
    )  # fmt: skip
    assert compiled.returncode == 0, compiled.stdout + compiled.stderr
    follow(running)

    used = run(["node", str(tmp_path / "use.js"), running.url, "ts-user"], variables)

    kind, items = parsed(used)
    assert (kind, items[0]) == ("invalid_event", "generated-cup")

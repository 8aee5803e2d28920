"""GetRecommendations through the Amazon Personalize path against the native route, in one run.

    python -m benchmarks.personalize [--users 20000] [--items 50000] [--runs 5]

Needs `wrk` (4.1 or later) on the PATH. One API process does not authenticate, another checks
signatures; wrk drives each with the same users from 16 connections, in turn. Requests are signed
beforehand, so that only the server is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import tempfile
from pathlib import Path

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from benchmarks.conditions import command, median, report, servers, until
from benchmarks.serving import CONNECTIONS, answers, wrk
from benchmarks.state import fill
from models.settings import Settings
from ops.ports import free_port

CAMPAIGN = "arn:aws:personalize:us-east-1:000000000000:campaign/default"
KEY, SECRET = "a-key", "a-secret"
N_SIGNED = 2000
"""Users whose requests are sent, each of them signed once."""

START_S = 300.0
"""Longest start of two processes that compile at the same time."""

NATIVE = """
math.randomseed({seed})
request = function()
  return wrk.format("GET", "/recommend?user_id=u" .. math.random(0, {users} - 1))
end
"""

PREPARED = """
math.randomseed({seed})
local requests = {{}}
init = function()
  for line in io.lines("{file}") do
    local body, date, signature = line:match("([^\t]*)\t([^\t]*)\t([^\t]*)")
    local headers = {{["content-type"] = "application/json"}}
    if signature ~= "" then
      headers["x-amz-date"], headers["authorization"] = date, signature
    end
    requests[#requests + 1] = wrk.format("POST", "/personalize/recommendations", headers, body)
  end
end
request = function() return requests[math.random(#requests)] end
"""

DONE = """
done = function(summary)
  if summary.errors.status > 0 then io.write("ERRORS " .. summary.errors.status .. "\\n") end
end
"""


def prepare(file: Path, url: str, users: int, *, signed: bool) -> None:
    """Write a request a line: its body, and its date and signature where it is signed."""
    signer = SigV4Auth(Credentials(KEY, SECRET), "personalize", "us-east-1")
    lines = []
    for user in range(users):
        body = json.dumps({"campaignArn": CAMPAIGN, "userId": f"u{user}"})
        request = AWSRequest("POST", url, {"content-type": "application/json"}, body)
        if signed:
            signer.add_auth(request)
        headers = request.headers
        signature = (headers.get("x-amz-date", ""), headers.get("authorization", ""))
        lines.append("\t".join((body, *signature)))
    file.write_text("\n".join(lines))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--events-per-user", type=int, default=10)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=6)
    options = parser.parse_args()
    with servers() as settings, tempfile.TemporaryDirectory() as folder:
        asyncio.run(
            fill(
                settings,
                users=options.users,
                items=options.items,
                events_per_user=options.events_per_user,
            )
        )
        rates = measure(settings, Path(folder), options)
    native = rates["native"]
    report(
        "personalize",
        {
            **{f"{name}_per_s": median(found) for name, found in rates.items()},
            # Of each run's own figures, for a machine's speed changes from run to run.
            **{
                f"{name}_times_native": median(
                    [one / other for one, other in zip(native, found, strict=True)]
                )
                for name, found in rates.items()
                if name != "native"
            },
        },
        users=options.users,
        items=options.items,
        connections=CONNECTIONS,
        runs=options.runs,
    )


def measure(
    settings: Settings, folder: Path, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Requests a second of each way to ask, by run."""
    asks_nobody = settings.model_copy(update={"port": free_port()})
    checks = settings.model_copy(update={"port": free_port()})
    urls = {
        name: f"http://{settings.host}:{chosen.port}"
        for name, chosen in (("unsigned", asks_nobody), ("signed", checks))
    }
    files = {name: folder / name for name in urls}
    users = min(options.users, N_SIGNED)
    for name, url in urls.items():
        prepare(files[name], f"{url}/personalize/recommendations", users, signed=name == "signed")
    rates: dict[str, list[float]] = {"native": [], "unsigned": [], "signed": []}
    keys = json.dumps({KEY: SECRET})
    with (
        command("api", asks_nobody),
        command(
            "api",
            checks,
            RECOMMENDER_PERSONALIZE_AUTH="sigv4",
            RECOMMENDER_PERSONALIZE_ACCESS_KEYS=keys,
        ),
    ):
        for url in urls.values():
            until(functools.partial(answers, f"{url}/healthz"), within_s=START_S)
        for run in range(options.runs + 1):
            scripts = {name: PREPARED.format(seed=run, file=file) for name, file in files.items()}
            found = {
                "native": wrk(
                    f"{urls['unsigned']}/",
                    options.seconds,
                    NATIVE.format(seed=run, users=users) + DONE,
                )[0],
                **{
                    name: wrk(f"{urls[name]}/", options.seconds, script + DONE)[0]
                    for name, script in scripts.items()
                },
            }
            if run:  # the first warms the caches
                for name, rate in found.items():
                    rates[name].append(rate)
    return rates


if __name__ == "__main__":
    main()

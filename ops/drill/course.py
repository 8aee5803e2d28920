"""The course of a drill: faults one after the other or two at once, under load, and audits."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from models.errors import InvalidSetting
from ops.drill.audit import Account, audit
from ops.drill.comparison import Findings
from ops.drill.faults import (
    lost_tail_faults,
    message_faults,
    process_faults,
    redis_faults,
    server_faults,
    snapshot_faults,
)
from ops.drill.faults.fault_registry import FAULTS, Fault, possible, schedule
from ops.drill.observations import Strike
from ops.drill.reads import behind, ends_of, event_places
from ops.drill.site import POWERS, Interrupted, Site, stop_orderly

KINDS = (
    lost_tail_faults,
    message_faults,
    process_faults,
    redis_faults,
    server_faults,
    snapshot_faults,
)
"""Importing them registers their faults."""

SETTLED_WITHIN_S = 240.0
RECOVERED_WITHIN_S = 60.0
SNAPSHOT_SHARE = 0.4
RECOVERY_SHARE = 0.7
"""Share of the faults after which the next one waits until an event takes effect again."""

SHOWN_CHARACTERS = 300

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """Parameters of a drill.

    Attributes
    ----------
    seed
        Of the order of faults; the site's load has its own.
    n_faults, minutes
        When it ends: whichever is reached first.
    audit_every
        Faults between two audits; another audit is at the end.
    names
        Kinds of faults to draw from; none: all that the site permits.
    """

    seed: int
    n_faults: int = 10**9
    minutes: float = float("inf")
    audit_every: int = 25
    names: Sequence[str] = ()


@dataclass
class DrillOutcome:
    """Findings of a drill.

    Attributes
    ----------
    seen
        What was last seen of each kind of fault.
    settled_s
        The times until nothing waited any more, once the load was stopped for an audit.
    ended
        Exit codes of processes that ended by themselves, by name.
    errors
        Errors of causing faults, and faults of which nothing was seen.
    """

    done: Counter[str] = field(default_factory=Counter)
    seen: dict[str, str] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)
    settled_s: list[float] = field(default_factory=list)
    ended: dict[str, list[int]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    n_audits: int = 0
    seconds: float = 0.0


def chosen(names: Sequence[str], powers: frozenset[str]) -> list[str]:
    """The kinds of faults to draw from, in the order of the list of all.

    Raises
    ------
    InvalidSetting
        A name is of no kind, or of one that this site does not permit.
    """
    permitted = possible(powers)
    for name in names:
        if name not in FAULTS:
            raise InvalidSetting(f"there is no fault {name!r}: see recommender drill --list")
        if name not in permitted:
            missing = ", ".join(POWERS[one] for one in sorted(FAULTS[name].needs - powers))
            raise InvalidSetting(f"{name} is not possible here: it needs {missing}")
    return [name for name in permitted if not names or name in names]


def run(opened: AbstractContextManager[Site], plan: Plan, say: Say) -> tuple[Site, DrillOutcome]:
    """Run a drill on a site that is opened for it; gives the ended site, and what was found.

    Raises
    ------
    InvalidSetting
        The plan names a fault that is not possible.
    KeyboardInterrupt
        The user ended it: all processes have ended.
    """
    outcome = DrillOutcome()
    say("starting servers, workers and API")
    with opened as site:
        names = chosen(plan.names, site.powers)
        began_s = time.monotonic()
        with site.load:
            try:
                _cause_faults(site, plan, names, outcome, say)
            except BaseException:
                # Whoever waits for a server that is away would wait for long.
                site.load.stop()
                site.end()
                raise
        outcome.seconds = time.monotonic() - began_s
        stop_orderly(site)
        processes = (*site.workers, *site.guests, site.api)
        outcome.ended = {p.name: p.ended for p in processes if p.ended}
    return site, outcome


def _cause_faults(
    site: Site, plan: Plan, names: list[str], outcome: DrillOutcome, say: Say
) -> None:
    began_s, audited, chance = time.monotonic(), 0, random.Random(plan.seed)
    for together in schedule(chance, names):
        elapsed_s, n_done = time.monotonic() - began_s, outcome.done.total()
        if n_done >= plan.n_faults or elapsed_s >= 60 * plan.minutes:
            break
        now = together[: plan.n_faults - n_done]
        _strike(site, now, chance, outcome)
        n_done = outcome.done.total()
        for fault in now:
            seen = outcome.seen.get(fault.name, "nothing was seen")
            say(f"{elapsed_s:6.0f} s  {n_done:4}  {fault.name}: {seen}"[:SHOWN_CHARACTERS])
        site.up()
        if chance.random() < SNAPSHOT_SHARE:
            site.take_snapshot()
        if chance.random() < RECOVERY_SHARE:
            _wait_recovered(site)
        site.pause(chance, 0.1, 1.5)
        if n_done >= audited + plan.audit_every:
            audited = n_done
            _audit(site, outcome, say)
            if not outcome.findings.is_clean():
                return
    _audit(site, outcome, say)


def _strike(
    site: Site, together: list[Fault], chance: random.Random, outcome: DrillOutcome
) -> None:
    """Cause faults at once, and take note of what was seen of each."""

    def act(fault: Fault, own: random.Random) -> None:
        try:
            outcome.seen[fault.name] = fault.act(site, own)
        except Interrupted:
            return
        except Exception as error:  # noqa: BLE001  the drill goes on and reports it
            if not site.ending.is_set():
                outcome.errors.append(f"{fault.name}: {error!r}")
        else:
            outcome.done[fault.name] += 1

    threads = [
        threading.Thread(target=act, args=(fault, random.Random(chance.random())), daemon=True)
        for fault in together
    ]
    began_s = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = tuple(fault.name for fault in together)
    site.load.observed.strikes.append(Strike(names, began_s, time.monotonic()))


def _wait_recovered(site: Site) -> None:
    """Wait until an event that was sent after now has taken effect; not for ever."""
    now_s = time.monotonic()
    until_s = now_s + RECOVERED_WITHIN_S
    while site.load.observed.recovered_s(now_s) is None and time.monotonic() < until_s:
        site.up()
        site.wait(0.05)


def _audit(site: Site, outcome: DrillOutcome, say: Say) -> None:
    """Stop the load, wait until nothing is under way, and compare."""
    with site.load.paused():
        began_s = time.monotonic()
        try:
            site.wait_until(lambda: _is_settled(site), within_s=SETTLED_WITHIN_S, what="no lag")
        except TimeoutError as error:
            outcome.findings = Findings(lost=[f"{error}: {_behind(site)}"])
            return
        outcome.settled_s.append(time.monotonic() - began_s)
        outcome.findings = audit(site.settings, _account(site))
        outcome.findings.n_compared["watermarks"] = len(event_places(site.settings))
    outcome.n_audits += 1
    found = outcome.findings
    verdict = "nothing is lost or doubled" if found.is_clean() else "there are differences"
    say(f"audit of {found.n_messages} messages: {verdict}")


def _account(site: Site) -> Account:
    return Account(
        acknowledged=set(site.load.sent.acknowledged),
        poison=site.poison,
        lost_poison=site.lost_poison,
        erased=site.erased,
        tails=site.tails,
    )


def _is_settled(site: Site) -> bool:
    site.up()
    return not _behind(site)


def _behind(site: Site) -> dict[str, tuple[int, int]]:
    """Watermark and end of each partition that is behind."""
    return behind(site.settings, ends_of(site.settings, event_places(site.settings)))

"""The guard of experiments: ends arms that harm the guardrail metric, and says so in the audit."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import msgspec

from models.audit_entries import AuditEntry
from models.serving.merchandising.experiment_report import harmful_arms
from models.serving.merchandising.experiments import experiments, save_experiment
from models.state.store import Store

LOG = logging.getLogger(__name__)

GUARD_EVERY_S = 10.0
ACTOR = "guardrail"


async def guard_experiments(
    store: Store, write_entry: Callable[[AuditEntry], Awaitable[None]], *, now_s: float
) -> list[tuple[str, str]]:
    """End the arms of a group's running experiments that do harm; returns experiments and arms.

    Their users get the control's configuration from then on. The entry of the audit log comes
    first: an arm is not ended where that cannot be written.
    """
    ended = []
    for name, one in (await experiments(store)).items():
        if one.stopped_at or now_s >= one.ends_at():
            continue
        harmful = await harmful_arms(store, one, now_s=now_s)
        if not harmful:
            continue
        targets = [f"{name}/{arm}" for arm in harmful]
        await write_entry(
            AuditEntry(now_s, ACTOR, "", "end_experiment_arm", store.settings.group, targets, "")
        )
        changed = msgspec.structs.replace(
            one, ended_arms=one.ended_arms | dict.fromkeys(harmful, now_s)
        )
        await save_experiment(store, name, changed, by=ACTOR, now_s=now_s)
        for arm in harmful:
            LOG.warning("experiment %s: arm %s harms the guardrail metric, and is ended", name, arm)
            ended.append((name, arm))
    return ended

"""Modules of broker, workers, jobs and API: the fork server loads them once, and it alone."""

import gc
import importlib
import os

# A fifth of the time of loading would go to collections, for a megabyte of what they find.
gc.disable()
for _module in (
    "cli.processes",
    "uvicorn",
    "api.app",
    "ops.broker.process",
    "ops.logs",
    "streams.agents.worker",
    "streams.jobs.runner",
    "streams.kafka.producing.publisher",
):
    importlib.import_module(_module)
importlib.import_module("api.personalize.service_model").service_operations()
# The terminal's signals are for the supervisor, which ends its processes in order.
os.setsid()
# A collection would write to every page, and each process would then have its own copy of it.
gc.freeze()
gc.enable()

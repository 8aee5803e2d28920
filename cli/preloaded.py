"""What worker, jobs and API load, once, in the fork server; imported by that process alone."""

import gc
import os

import uvicorn  # noqa: F401

import streams.agents.worker
import streams.jobs.runner
import streams.kafka.publisher  # noqa: F401
from api.personalize.service_model import service_operations

service_operations()
# The terminal's signals are for the supervisor, which ends its processes in order.
os.setsid()
# A collection would write to every page, and each process would then have its own copy of it.
gc.collect()
gc.freeze()

"""Shadow comparison: a sample of answers is compared with those of an Amazon Personalize campaign.

It runs on threads of its own: no request waits for it, and comparisons beyond the bounded queue are
dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING

import boto3.session
import botocore.exceptions as boto
from botocore.config import Config
from botocore.parsers import ResponseParserError
from prometheus_client import Counter, Histogram

from models.evaluation.rank_agreement import overlap, rank_correlation
from models.log_throttle import LogThrottle
from models.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_personalize_runtime import PersonalizeRuntimeClient

LOG = logging.getLogger(__name__)

K = 25
"""Longest lists that are compared."""

THREADS = 4
MAX_WAITING = 100
TIMEOUT_S = 2.0
QUIET_S = 60.0
DEFAULT_REGION = "us-east-1"

REQUESTS = Counter(
    "recommender_shadow_requests_total", "Answers of the sample by outcome", ["outcome"]
)
OVERLAP = Histogram(
    "recommender_shadow_overlap_share",
    "Share of the first 25 items that the AWS campaign also recommended",
    buckets=[n / 10 for n in range(11)],
)
CORRELATION = Histogram(
    "recommender_shadow_rank_correlation",
    "Spearman's rank correlation of the items that both recommended",
    buckets=[n / 5 for n in range(-5, 6)],
)
SECONDS = Histogram(
    "recommender_shadow_seconds",
    "Duration of the same request here and at AWS",
    ["side"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2),
)
_OUTCOMES = {name: REQUESTS.labels(name) for name in ("compared", "failed", "dropped")}


class ShadowComparison:
    """Compares a share of answers with a campaign; boto3 finds address and credentials.

    Parameters
    ----------
    settings
        The campaign, and the share of answers.
    chance
        Draws a number from 0 to 1; an answer is compared if it is less than the share.
    """

    def __init__(self, settings: Settings, *, chance: Callable[[], float] = random.random) -> None:
        self._arn = settings.shadow_campaign_arn
        self._share = settings.shadow_share
        self._chance = chance
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="shadow")
        self._client_lock = threading.Lock()
        self._n_waiting = 0
        self._failures = LogThrottle(QUIET_S)
        self._counting = threading.Lock()

    def compare(self, user_id: str, item_ids: Sequence[str], *, k: int, took_s: float) -> None:
        """Queue an answer for comparison if it is in the sample; never blocks.

        Parameters
        ----------
        k
            Items that the request asked for.
        took_s
            Duration of the answer here.
        """
        if self._chance() >= self._share:
            return
        with self._counting:
            is_full = self._n_waiting >= MAX_WAITING
            self._n_waiting += not is_full
        if is_full:
            _OUTCOMES["dropped"].inc()
            return
        asked = self._threads.submit(self._compare, user_id, list(item_ids[:K]), min(k, K), took_s)
        asked.add_done_callback(self._finish)

    async def close(self) -> None:
        """Drop queued comparisons, and wait for those under way."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    def _compare(self, user_id: str, ours: list[str], k: int, took_s: float) -> None:
        started_s = time.perf_counter()
        answer = self._client.get_recommendations(
            campaignArn=self._arn, userId=user_id, numResults=k
        )
        SECONDS.labels("aws").observe(time.perf_counter() - started_s)
        SECONDS.labels("own").observe(took_s)
        theirs = list(dict.fromkeys(item["itemId"] for item in answer["itemList"]))
        OVERLAP.observe(overlap(ours, theirs, k=k))
        correlation = rank_correlation(ours, theirs)
        if correlation is not None:
            CORRELATION.observe(correlation)

    def _finish(self, asked: Future[None]) -> None:
        with self._counting:
            self._n_waiting -= 1
        if asked.cancelled():
            _OUTCOMES["dropped"].inc()
        elif (error := asked.exception()) is None:
            _OUTCOMES["compared"].inc()
        else:
            _OUTCOMES["failed"].inc()
            self._log_failure(error)

    def _log_failure(self, error: BaseException) -> None:
        """Log a failure once in a while, without AWS's text, which may quote the request."""
        with self._counting:
            if self._failures.suppressed("failed", time.monotonic()) is None:
                return
        name = type(error).__name__
        if isinstance(error, boto.ClientError):
            name = str(error.response.get("Error", {}).get("Code", name))[:100]
        is_expected = isinstance(error, (boto.ClientError, boto.BotoCoreError, ResponseParserError))
        LOG.warning(
            "the AWS campaign was not asked: %s", name, exc_info=None if is_expected else error
        )

    @property
    def _client(self) -> PersonalizeRuntimeClient:
        """The client; the first thread that needs it makes it, which takes a while."""
        with self._client_lock:
            return self._new_client

    @cached_property
    def _new_client(self) -> PersonalizeRuntimeClient:
        session = boto3.session.Session()
        return session.client(
            "personalize-runtime",
            region_name=session.region_name or DEFAULT_REGION,
            config=Config(
                connect_timeout=TIMEOUT_S,
                read_timeout=TIMEOUT_S,
                retries={"total_max_attempts": 1, "mode": "standard"},
                max_pool_connections=THREADS,
            ),
        )

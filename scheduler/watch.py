"""Looks at a call each time that its meter moves: it keeps the backend's leases, and stops where money runs out."""

from __future__ import annotations

import asyncio
import contextlib

import anyio

from finllm.scheduler.backends import Offer
from finllm.scheduler.health.services import Services
from finllm.scheduler.money.account import Account, Hold
from finllm.scheduler.money.costing import Costing
from finllm.scheduler.money.meter import Meter
from finllm.scheduler.placement.policy import least_tokens
from finllm.scheduler.placement.task import Task


class Watch:
    """Of one call, from the event loop that it is made on. `scope` is cancelled where a budget is spent."""

    def __init__(
        self, services: Services, costing: Costing, task: Task, offer: Offer, account: Account, hold: Hold
    ) -> None:
        self.scope = anyio.CancelScope()
        self.meter = Meter(self._from_any_thread)
        self._loop = asyncio.get_running_loop()
        self._services, self._costing, self._task, self._offer = services, costing, task, offer
        self._account, self._hold = account, hold
        self._tokens = 0

    def _from_any_thread(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the call with it
            self._loop.call_soon_threadsafe(self._moved)

    def _moved(self) -> None:
        used = self.meter.used
        self._services.progress(self._offer.name, used.tokens - self._tokens)
        self._tokens = used.tokens
        if self._hold.over:
            return
        self._hold.used = self._costing.so_far(self._offer, used, least_tokens(self._task))
        if self._account.over() is not None:
            self.scope.cancel()

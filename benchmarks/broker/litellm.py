"""LiteLLM's router, the real package, as a policy of the simulator: its own strategies choose, its loggers are told."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Any, Literal

from finllm.scheduler.placement.fleet import Fleet, Floats, Ints
from finllm.scheduler.placement.policies import Decision
from finllm.scheduler.placement.policies.assigned import Assigned
from finllm.scheduler.placement.waiting import Tasks

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or the import asks the network for prices

Strategy = Literal["least-busy", "latency-based-routing", "usage-based-routing"]
GROUP = "finllm"
MESSAGES = [{"role": "user", "content": "hawkish or dovish?"}]


class _Clock(datetime):
    """LiteLLM counts usage by the minute of the wall clock; in a simulation that is the simulated minute."""

    seconds = 0.0

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return datetime.fromtimestamp(cls.seconds, tz or UTC)


def router(names: list[str], strategy: Strategy) -> Any:
    """A router over deployments of these names, none of which is ever called."""
    logging.getLogger("LiteLLM").setLevel(logging.ERROR)  # each router adds callbacks, which are not used here
    import litellm.router_strategy.lowest_latency
    import litellm.router_strategy.lowest_tpm_rpm
    from litellm import Router

    litellm.router_strategy.lowest_latency.datetime = _Clock
    litellm.router_strategy.lowest_tpm_rpm.datetime = _Clock
    deployments = [
        {
            "model_name": GROUP,
            "litellm_params": {"model": f"openai/{name}", "api_key": "none", "api_base": "http://localhost:1"},
            "model_info": {"id": name},
        }
        for name in names
    ]
    return Router(model_list=deployments, routing_strategy=strategy)


class LiteLLM:
    """Assigns each task on arrival to the deployment that the router picks; a queue of its own at each, first come
    first served, as the router has none.
    """

    def __init__(self, fleet: Fleet, strategy: Strategy, limit: float) -> None:
        self._names = [spec.name for spec in fleet.specs]
        self._router = router(self._names, strategy)
        self._log = {
            "least-busy": lambda: self._router.leastbusy_logger,
            "latency-based-routing": lambda: self._router.lowestlatency_logger,
            "usage-based-routing": lambda: self._router.lowesttpm_logger,
        }[strategy]()
        self._queues = Assigned(self._choose, limit=limit)
        self._started: dict[int, float] = {}
        self._now = 0.0

    def arrive(self, row: int, tasks: Tasks, fleet: Fleet) -> None:
        self._queues.arrive(row, tasks, fleet)

    def finish(self, row: int, backend: int, now: float, tasks: Tasks, output: float) -> None:
        from litellm import ModelResponse, Usage

        _Clock.seconds = self._now = now
        prompt = round(tasks.prompt(row))
        usage = Usage(prompt_tokens=prompt, completion_tokens=round(output), total_tokens=prompt + round(output))
        response = ModelResponse(usage=usage)
        self._log.log_success_event(self._told(backend), response, self._started.pop(row, now), now)
        self._queues.finish(row, backend, now, tasks, output)

    def next(self, now: float, tasks: Tasks, waiting: Ints, fleet: Fleet) -> Decision | None:
        _Clock.seconds = self._now = now
        return self._queues.next(now, tasks, waiting, fleet)

    def _choose(self, row: int, tasks: Tasks, fleet: Fleet, backlog: Floats) -> int:
        found = self._router.get_available_deployment(model=GROUP, messages=MESSAGES)
        backend = self._names.index(found["model_info"]["id"])
        if not tasks.may[row, backend]:
            backend = int(tasks.may[row].argmax())
        before: Callable[..., None] | None = getattr(self._log, "log_pre_api_call", None)
        if before is not None:
            before(model=GROUP, messages=MESSAGES, kwargs=self._told(backend))
        self._started[row] = self._now
        return backend

    def _told(self, backend: int) -> dict[str, Any]:
        return {
            "litellm_params": {"metadata": {"model_group": GROUP}, "model_info": {"id": self._names[backend]}},
            "stream": False,
        }

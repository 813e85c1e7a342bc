"""Which executor a desk has: this process, or the cluster that FINLLM_CLUSTER names."""

from __future__ import annotations

from collections.abc import Callable

from finllm.scheduler.backends import Backend
from finllm.scheduler.backends.kind import Opening
from finllm.scheduler.cluster import Told
from finllm.scheduler.cluster.place import Place
from finllm.scheduler.executors import Executor
from finllm.scheduler.executors.in_process import InProcess
from finllm.settings import Settings


def executor_of(settings: Settings, told: Told, opens: Callable[[Opening], list[Backend]]) -> Executor:
    """The executor. `opens` opens this process's own backends. Ray is imported for a cluster alone.

    Errors: InputError for a cluster that this home has not joined.
    """
    if settings.cluster is None:
        return InProcess(opens)
    from finllm.scheduler.executors.ray_executor import RayExecutor

    return RayExecutor(Place(settings.cluster_dir), settings.cluster, told, opens)

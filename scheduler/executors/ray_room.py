"""Ray as finllm uses it: a process becomes one of its drivers, finds nodes' rooms, and reads what Ray keeps by key."""

from __future__ import annotations

import importlib
import logging
import os
from concurrent.futures import Future
from typing import Any, cast

from finllm.errors import BackendError
from finllm.scheduler.backends import Request
from finllm.scheduler.cluster.door import handshake
from finllm.scheduler.cluster.knock import split
from finllm.scheduler.cluster.place import Place
from finllm.scheduler.executors.ray_processes import NAMESPACE, ray_environment, the_ray
from finllm.scheduler.executors.remote import LostRoom

_KEYS = b"finllm"


class RayRoom:
    """A node's room by the name of its actor."""

    def __init__(self, name: str) -> None:
        ray = the_ray()
        self._ray, self.name = ray, name
        try:
            self.actor: Any = ray.get_actor(name, namespace=NAMESPACE)
        except ValueError as error:
            raise LostRoom(str(error)) from error

    def ask(self, call: str, name: str, request: Request) -> Future[bytes]:
        done: Future[bytes] = Future()
        inner: Future[bytes] = self.actor.ask.remote(call, name, request).future()

        def settle(_: object) -> None:
            error = inner.exception()
            if done.cancelled():
                return
            if error is not None:
                done.set_exception(LostRoom(str(error).splitlines()[0]))
            else:
                done.set_result(inner.result())

        inner.add_done_callback(settle)
        return done

    def stop(self, call: str) -> None:
        self.actor.stop.remote(call)


def _silent(*_: Any, **__: Any) -> None: ...


def connect(place: Place, state: dict[str, Any]) -> None:
    """Make this process one of Ray's drivers, under this home's certificate. Errors: BackendError."""
    os.environ.update(ray_environment(place))
    try:
        ray, driver = the_ray(), cast(Any, importlib.import_module("ray._private.worker"))
    except ImportError as error:
        raise BackendError("Ray is not installed", fix="pip install 'finllm[cluster]'") from error
    if ray.is_initialized():
        return
    logging.getLogger("ray").addHandler(logging.NullHandler())  # what it says is told by errors
    driver.print_to_stdstream = _silent  # it tells of nodes that died on stdout, which is for data
    try:
        place.holder(place.certificate_path.read_bytes())
        handshake(place, *split(state["gcs"]))  # Ray itself would try for a day
        ray.init(address=state["gcs"], _node_ip_address=state["host"], namespace=NAMESPACE, log_to_driver=False,
                 configure_logging=False, logging_level=logging.ERROR)  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise BackendError(f"it does not answer: {why}", fix="run 'finllm cluster status' there") from error


def _table() -> Any:
    """What Ray keeps for a cluster by key; its functions have no public name."""
    return importlib.import_module("ray.experimental.internal_kv")


def read(key: str) -> bytes | None:
    return _table()._internal_kv_get(key.encode(), namespace=_KEYS)


def write(key: str, value: bytes) -> None:
    _table()._internal_kv_put(key.encode(), value, overwrite=True, namespace=_KEYS)


def remove(key: str) -> None:
    _table()._internal_kv_del(key.encode(), namespace=_KEYS)


def keys(prefix: str) -> list[str]:
    return sorted(key.decode() for key in _table()._internal_kv_list(prefix.encode(), namespace=_KEYS))

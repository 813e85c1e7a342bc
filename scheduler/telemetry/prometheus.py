"""Prometheus metrics of the broker, at 127.0.0.1 and only where a port is set (`finllm[telemetry]`)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any

from finllm.errors import InputError
from finllm.events import CallFailed, CallFinished, Event
from finllm.scheduler.health.services import Services

_STATES = ("closed", "half-open", "open")
_GAUGES = {
    "running": "Calls under way",
    "waiting": "Calls that wait for a slot",
    "slots": "Calls that may be under way",
    "batch": "Requests that the last step served",
}
_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@contextlib.contextmanager
def serve_metrics(port: int, services: Services) -> Generator[Callable[[Event], None]]:
    """Serve metrics until the end of the block; gives the renderer that counts the broker's events.

    Errors: InputError where prometheus-client is not installed or the port is taken.
    """
    try:
        import prometheus_client
    except ImportError as error:
        raise InputError("prometheus-client is not installed", fix="pip install 'finllm[telemetry]'") from error
    registry = prometheus_client.CollectorRegistry()
    counted = _Counted(prometheus_client, registry)
    registry.register(_States(services))
    try:
        server, thread = prometheus_client.start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise InputError(f"no metrics at port {port}: {error}", fix="set FINLLM_METRICS_PORT to a free port") from error
    try:
        yield counted
    finally:
        server.shutdown()
        server.server_close()
        thread.join(1.0)


class _Counted:
    """Counts what events say."""

    def __init__(self, prometheus: Any, registry: Any) -> None:
        def counter(name: str, what: str, *labels: str) -> Any:
            return prometheus.Counter(f"finllm_{name}", what, ("backend", *labels), registry=registry)

        self._calls = counter("calls", "Calls by how they ended: answered, reused or failed", "agent", "outcome")
        self._tokens = counter("tokens", "Tokens of prompt and of output that were charged", "type")
        self._joules = counter("joules", "Joules charged, by where they come from", "provenance")
        self._grams = counter("co2e_grams", "gCO2e charged")
        self._usd = counter("usd", "USD charged")
        self._seconds = prometheus.Histogram("finllm_call_model_seconds", "Seconds of the model's work for a call",
                                             ("backend", "agent"), buckets=_BUCKETS, registry=registry)  # fmt: skip

    def __call__(self, event: Event) -> None:
        if isinstance(event, CallFailed):
            self._calls.labels(event.backend, event.agent, "failed").inc()
            self._tokens.labels(event.backend, "unanswered").inc(event.tokens)
        elif isinstance(event, CallFinished):
            name = event.backend
            self._calls.labels(name, event.agent, "reused" if event.reused else "answered").inc()
            if event.reused:
                return
            self._tokens.labels(name, "prompt").inc(event.prompt_tokens)
            self._tokens.labels(name, "output").inc(event.tokens - event.prompt_tokens)
            self._joules.labels(name, event.energy or "unknown").inc(event.joules)
            self._grams.labels(name).inc(event.grams)
            self._usd.labels(name).inc(event.usd)
            self._seconds.labels(name, event.agent).observe(event.seconds)


class _States:
    """The backends' state at the moment they are scraped."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Generator[Any]:
        from prometheus_client.core import GaugeMetricFamily

        states = self._services.state()
        for name, what in _GAUGES.items():
            gauge = GaugeMetricFamily(f"finllm_backend_{name}", what, labels=["backend"])
            for one in states:
                gauge.add_metric([one.name], getattr(one, name))
            yield gauge
        breaker = GaugeMetricFamily("finllm_backend_breaker", "1 for the state of the circuit",
                                    labels=["backend", "state"])  # fmt: skip
        for one in states:
            for state in _STATES:
                breaker.add_metric([one.name, state], float(one.breaker == state))
        yield breaker

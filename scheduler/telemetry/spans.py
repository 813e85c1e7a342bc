"""OpenTelemetry spans of model calls, by the GenAI conventions, sent only where an endpoint is set.

No prompt, answer or source is in them: names, counts and costs only. `finllm[telemetry]`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any

from finllm.errors import InputError
from finllm.events import CallFailed, CallFinished, CallStarted, Event

WAIT = 2.0
"""Longest wait for the collector, s: at the end too, and what it did not take by then is dropped."""


@contextlib.contextmanager
def send_spans(endpoint: str) -> Generator[Callable[[Event], None]]:
    """Send a span for every model call until the end of the block; gives the renderer that makes them.

    `endpoint`: of an OTLP collector over HTTP, with or without `/v1/traces`. Errors: InputError where the packages are
    not installed or the endpoint is no URL.
    """
    if not endpoint.startswith(("http://", "https://")):
        raise InputError(f"FINLLM_OTLP_ENDPOINT is {endpoint!r}", fix="give a URL such as http://localhost:4318")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InputError("OpenTelemetry's exporter is not installed", fix="pip install 'finllm[telemetry]'") from error
    url = endpoint if endpoint.endswith("/v1/traces") else endpoint.rstrip("/") + "/v1/traces"
    processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=int(WAIT)), export_timeout_millis=WAIT * 1000)
    with spans_to(processor) as renderer:
        yield renderer


@contextlib.contextmanager
def spans_to(processor: Any) -> Generator[Callable[[Event], None]]:
    """As `send_spans`, to a span processor; OpenTelemetry's own global provider is left alone."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider(resource=Resource({"service.name": "finllm"}), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    try:
        yield _Spans(provider.get_tracer("finllm"))
    finally:
        provider.force_flush(int(WAIT * 1000))
        provider.shutdown()


class _Spans:
    """Turns the events of calls into spans, by the calls' keys."""

    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer
        self._open: dict[str, Any] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, CallStarted):
            self._open[event.key] = self._begun(event)
        elif isinstance(event, CallFailed):
            self._fail(event)
        elif isinstance(event, CallFinished) and (span := self._open.pop(event.key, None)) is not None:
            span.set_attributes({
                "gen_ai.response.model": event.backend,
                "gen_ai.usage.input_tokens": event.prompt_tokens,
                "gen_ai.usage.output_tokens": event.tokens - event.prompt_tokens,
                "finllm.model_seconds": event.seconds,
                "finllm.joules": event.joules,
                "finllm.joules.provenance": event.energy or "unknown",
                "finllm.co2e_grams": event.grams,
                "finllm.usd": event.usd,
            })  # fmt: skip
            span.end()

    def _begun(self, event: CallStarted) -> Any:
        from opentelemetry.trace import SpanKind

        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": event.provider,
            "gen_ai.request.model": event.backend,
            "gen_ai.agent.name": event.agent,
            "gen_ai.conversation.id": event.run_id,
            "finllm.node": event.node,
            "finllm.call": event.key,
        }
        return self._tracer.start_span(f"chat {event.backend}", kind=SpanKind.CLIENT, attributes=attributes)

    def _fail(self, event: CallFailed) -> None:
        from opentelemetry.trace import Status, StatusCode

        span = self._open.pop(event.key, None)
        if span is not None:
            span.set_attributes({"error.type": "backend_failed", "finllm.tokens_without_answer": event.tokens})
            span.set_status(Status(StatusCode.ERROR, "the backend gave no answer"))
            span.end()

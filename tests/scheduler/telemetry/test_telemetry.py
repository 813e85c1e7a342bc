"""Metrics and spans: what the broker did, in the names that others' tools know, and no word of what was asked."""

from __future__ import annotations

import json
import socket
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from finllm.errors import InputError
from finllm.events import EventBus
from finllm.scheduler.broker import Broker
from finllm.scheduler.telemetry.prometheus import serve_metrics
from finllm.scheduler.telemetry.spans import send_spans, spans_to
from finllm.testing import MemoryRecorder, ScriptedBackend
from tests.scheduler.test_broker import TASK, ask, deep

SECRET = "the strait is closed"
ASKED = replace(TASK, prompt=replace(TASK.prompt, user=SECRET))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def working() -> tuple[Broker, EventBus]:
    bus = EventBus()
    failing = ScriptedBackend([{"fail": f"out of memory: {SECRET}"}], name="edge")
    return Broker([failing, deep()], MemoryRecorder(), bus, call_timeout=30.0), bus


def test_metrics_count_calls_tokens_and_joules_and_tell_the_circuits() -> None:
    broker, bus = working()
    port = free_port()
    with serve_metrics(port, broker.services) as renderer:
        bus.subscribe(renderer)
        ask(broker, ASKED)
        ask(broker, ASKED, run_id="again")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
            text = page.read().decode()
    for line in (
        'finllm_calls_total{agent="market-signal",backend="edge",outcome="failed"} 2.0',
        'finllm_calls_total{agent="market-signal",backend="deep",outcome="answered"} 1.0',
        'finllm_calls_total{agent="market-signal",backend="deep",outcome="reused"} 1.0',
        'finllm_joules_total{backend="deep",provenance="table"}',
        'finllm_backend_breaker{backend="edge",state="closed"} 1.0',
        'finllm_backend_running{backend="deep"} 0.0',
    ):
        assert line in text
    assert SECRET not in text
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)


def test_a_port_that_is_taken_says_so() -> None:
    broker, _ = working()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"no metrics at port {port}"), serve_metrics(port, broker.services):
            pass


def test_a_call_is_a_span_by_the_genai_conventions_without_its_text() -> None:
    kept = InMemorySpanExporter()
    broker, bus = working()
    with spans_to(SimpleSpanProcessor(kept)) as renderer:
        bus.subscribe(renderer)
        answer = ask(broker, ASKED)
        ask(broker, ASKED, run_id="again")
        spans: tuple[ReadableSpan, ...] = kept.get_finished_spans()
    failed, answered, _tried_again = spans
    said = dict(answered.attributes or {})
    assert (answered.name, answered.kind.name) == ("chat deep", "CLIENT")
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.request.model"] == said["gen_ai.response.model"] == "deep"
    assert said["gen_ai.agent.name"] == "market-signal"
    assert said["gen_ai.conversation.id"] == "run"
    assert said["gen_ai.usage.input_tokens"] == len(SECRET) // 4
    assert int(str(said["gen_ai.usage.output_tokens"])) > 0
    assert said["finllm.call"] == answer.key
    assert said["finllm.joules.provenance"] == "table"
    assert failed.name == "chat edge"
    assert not failed.status.is_ok
    assert all(SECRET not in json.dumps(json.loads(span.to_json())) for span in spans)


@pytest.fixture
def collector() -> Iterator[tuple[str, list[str]]]:
    """An OTLP collector on this machine; the paths that it was sent something at."""
    taken: list[str] = []

    class Takes(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            taken.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    server = HTTPServer(("127.0.0.1", 0), Takes)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", taken
    server.shutdown()
    server.server_close()
    thread.join()


def test_spans_are_sent_to_the_collector_before_the_desk_closes(collector: tuple[str, list[str]]) -> None:
    url, taken = collector
    broker, bus = working()
    with send_spans(url) as renderer:
        bus.subscribe(renderer)
        ask(broker)
    assert set(taken) == {"/v1/traces"}


def test_an_endpoint_that_is_no_url_is_refused() -> None:
    with pytest.raises(InputError, match="FINLLM_OTLP_ENDPOINT"), send_spans("localhost:4318"):
        pass

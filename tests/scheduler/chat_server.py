"""A real HTTP server on this machine that speaks OpenAI's chat protocol, answers as it is told, and can misbehave.

What it writes comes from a script, or from the real small model under llama.cpp's own grammar.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MODEL = "served-model"
Answer = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class ChatServer:
    """`say`: probability of each value by the last key that leads to it; others share alike. Switches change the rest.

    `busy`: answers of 429 before the first that is given, with `retry_after` in them. `outside`: answers that leave the
    schema before the first valid one. `raw`: the body in place of every answer. `drip`: s between two bytes of it.
    """

    say: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    logprobs: bool = True
    schema: bool = True
    usage: bool = True
    refuses: tuple[str, ...] = ()
    busy: int = 0
    retry_after: str | None = None
    outside: int = 0
    raw: bytes | None = None
    status: int = 200
    drip: float = 0.0
    cut: bool = False
    key: str | None = None
    models: tuple[str, ...] = (MODEL,)
    answer: Answer | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.answer is not None:
            return self.answer(body)
        schema = self._schema_of(body)
        with self._lock:
            outside, self.outside = self.outside > 0, max(self.outside - 1, 0)
        if outside or schema is None:
            return self._completion(body, [("I think oil went up.", {})])
        return self._completion(body, _filled(schema, self.say, body["temperature"], body["seed"]))

    def _schema_of(self, body: dict[str, Any]) -> dict[str, Any] | None:
        if self.schema:
            return body.get("response_format", {}).get("json_schema", {}).get("schema")
        told = re.search(r"JSON Schema: (\{.*\})", body["messages"][-1]["content"])
        return json.loads(told[1]) if told else None

    def _completion(self, body: dict[str, Any], pieces: list[tuple[str, dict[str, float]]]) -> dict[str, Any]:
        text = "".join(piece for piece, _ in pieces)
        choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text},
                                  "finish_reason": "stop", "logprobs": None}  # fmt: skip
        if self.logprobs and body.get("logprobs"):
            choice["logprobs"] = {"content": [
                {"token": piece, "logprob": math.log(likely.get(piece, 1.0)),
                 "top_logprobs": [{"token": other, "logprob": math.log(p)} for other, p in likely.items()]}
                for piece, likely in pieces
            ]}  # fmt: skip
        prompt = sum(len(row["content"]) for row in body["messages"]) // 4
        usage = {"prompt_tokens": prompt, "completion_tokens": len(pieces)}
        return {"object": "chat.completion", "choices": [choice], **({"usage": usage} if self.usage else {})}


def _filled(
    schema: dict[str, Any], say: Mapping[str, Mapping[str, float]], temperature: float, seed: int, key: str = ""
) -> list[tuple[str, dict[str, float]]]:
    """The pieces of an answer by the schema: at each enum one token with its alternatives."""
    if "const" in schema:
        return [(json.dumps(schema["const"], separators=(",", ":")), {})]
    if schema["type"] == "object":
        pieces: list[tuple[str, dict[str, float]]] = [("{", {})]
        for at, (name, part) in enumerate(schema["properties"].items()):
            pieces += [(("," if at else "") + json.dumps(name) + ":", {}), *_filled(part, say, temperature, seed, name)]
        return [*pieces, ("}", {})]
    if schema["type"] == "array":
        return [("[", {}), *_filled(schema["items"], say, temperature, seed, key), ("]", {})]
    values = schema.get("enum", ["words alone"])
    told = say.get(key, {})
    likely = {value: told.get(value, 1.0 / len(values)) for value in values}
    if temperature == 0:
        chosen = max(likely, key=lambda value: likely[value])
    else:  # the seeds of votes run through the distribution, so that shares are known beforehand
        place, chosen = (seed % 10 + 0.5) / 10 * sum(likely.values()), values[-1]
        for value in values:
            place -= likely[value]
            if place <= 0:
                chosen = value
                break
    return [('"', {}), (chosen, likely), ('"', {})]


@contextmanager
def serving(server: ChatServer) -> Iterator[ChatServer]:
    """Serve on a free port of this machine until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._send(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in server.models]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            server.asked.append(body)
            if server.key is not None and self.headers.get("authorization") != f"Bearer {server.key}":
                self._send(401, {"error": {"message": f"wrong key {self.headers.get('authorization')}"}})
            elif unknown := [name for name in server.refuses if name in body]:
                self._send(400, {"error": {"message": f"unknown field {unknown[0]}"}})
            elif server.busy:
                server.busy -= 1
                self._send(429, {"error": {"message": "slow down"}})
            elif server.cut:
                self.wfile.write(b'HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{"choices": [')
                self.wfile.flush()
                self.connection.close()
                self.close_connection = True
            elif server.raw is not None:
                self._send(server.status, server.raw)
            else:
                self._send(server.status, server.complete(body))

        def _send(self, status: int, said: Any) -> None:
            data = said if isinstance(said, bytes) else json.dumps(said, default=float).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            if status == 429 and server.retry_after is not None:
                self.send_header("retry-after", server.retry_after)
            self.end_headers()
            try:
                for byte in range(len(data)) if server.drip else ():
                    self.wfile.write(data[byte : byte + 1])
                    time.sleep(server.drip)
                if not server.drip:
                    self.wfile.write(data)
            except OSError:  # the client gave up, which is what a drip is for
                self.close_connection = True

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{listening.server_port}"
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def real_answers(weights: Path) -> tuple[Answer, Callable[[], None]]:
    """Completions of the real model in `weights` under llama.cpp's grammar of a JSON schema; and what frees it."""
    from llama_cpp import Llama

    model = Llama(str(weights), n_ctx=512, logits_all=True, n_threads=2, verbose=False)
    lock = threading.Lock()

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        told: Any = {}
        if "response_format" in body:
            schema = body["response_format"]["json_schema"]["schema"]
            told = {"response_format": {"type": "json_object", "schema": schema}}
        with lock:
            return dict(model.create_chat_completion(  # type: ignore[arg-type]
                messages=body["messages"], max_tokens=body["max_tokens"], temperature=body["temperature"],
                seed=body["seed"], logprobs=body.get("logprobs", False), top_logprobs=body.get("top_logprobs"), **told,
            ))  # fmt: skip

    return answer, model.close

"""Public fakes for unit tests: a backend that answers from a script and a recorder in memory."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from finllm.errors import BackendError
from finllm.scheduler.backends import Generation, Offer, Request, TokenLimitReached
from finllm.scheduler.decoding.filling import fill
from finllm.scheduler.placement.task import Tier
from finllm.scheduler.record import Entry

__all__ = ["MemoryRecorder", "ScriptedBackend"]

Script = Sequence[Mapping[str, Any]]
"""Rules, first match wins: `{"when": text in the user message, "say": {dotted field: value}}`; or `"fail": why`.

A field that no rule names takes the first allowed value."""


class ScriptedBackend:
    """A backend whose choices come from a script, with probability 0.9 each. `requests` keeps what it was asked.

    `offered`: further fields of its offer.
    """

    def __init__(
        self, script: Script, *, name: str = "scripted", tier: Tier = "edge", precision: str = "Q4_0",
        weights: str = "", **offered: Any,
    ) -> None:  # fmt: skip
        digest = weights or f"sha256-of-{name}"
        self._script = script
        self._offer = Offer(name, tier, precision, digest, "scripted", 4096, **{"kind": "scripted", **offered})
        self.requests: list[Request] = []

    @classmethod
    def from_file(cls, path: Path, **kwargs: Any) -> ScriptedBackend:
        """Read the script from a JSON file."""
        return cls(json.loads(path.read_text(encoding="utf-8")), **kwargs)

    @property
    def offer(self) -> Offer:
        return self._offer

    async def generate(self, request: Request) -> Generation:
        self.requests.append(request)
        await asyncio.sleep(0)
        rule = next((rule for rule in self._script if str(rule.get("when", "")) in request.prompt.user), {})
        if "fail" in rule:
            raise BackendError(str(rule["fail"]), fix="change the script")
        filled = fill(request.template, _ScriptedScorer(rule.get("say", {})))
        done = Generation(filled.text, filled.choices, len(request.prompt.user) // 4, len(filled.text) // 4, 0.01)
        if done.tokens > request.token_limit:
            raise TokenLimitReached(request.token_limit, max(int(request.token_limit), 0))
        return done


class _ScriptedScorer:
    def __init__(self, say: Mapping[str, str]) -> None:
        self._say = say

    def score(self, text: str, field: str, values: Sequence[str]) -> list[float]:
        del text
        wanted = self._say.get(field, values[0])
        return [math.log(9 * max(len(values) - 1, 1)) if value == wanted else 0.0 for value in values]


class MemoryRecorder:
    """A recorder that keeps entries in memory; `veto` makes the next record fail."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.uses: list[tuple[str, str, str]] = []
        self.veto: Callable[[Entry], None] | None = None

    def lookup(self, key: str) -> Entry | None:
        return self.entries.get(key)

    def record(self, entry: Entry, *, run_id: str, node: str) -> None:
        if self.veto is not None:
            self.veto(entry)
        self.entries.setdefault(entry.key, entry)
        self.uses.append((run_id, node, entry.key))

    def used(self, key: str, *, run_id: str, node: str) -> None:
        self.uses.append((run_id, node, key))

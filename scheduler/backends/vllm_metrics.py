"""What a vLLM server says of its load at `/metrics`: queue, KV use, and the counters that tell work from standstill."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

_SAMPLE = re.compile(r"^(vllm:[A-Za-z0-9_:]+)(?:\{.*\})? (\S+)")


@dataclass(frozen=True)
class EngineLoad:
    """Load of one server, summed over its engines.

    `running` and `waiting` count requests. `kv_used` is the fullest engine's share of its KV cache, 0 to 1. The others
    count since the server's start: `steps` of the engine, `prompt_tokens` (of which `cached_tokens` came from the
    prefix cache) and `output_tokens`, and `preemptions`.
    """

    running: int
    waiting: int
    kv_used: float
    steps: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    preemptions: int

    @property
    def progress(self) -> tuple[int, int, int]:
        """Changes whenever the engine has done anything."""
        return self.steps, self.prompt_tokens, self.output_tokens


def parse_metrics(text: str) -> EngineLoad:
    """Read Prometheus' text format. Errors: ValueError where vLLM's own counters are not in it."""
    samples: defaultdict[str, list[float]] = defaultdict(list)
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match:
            samples[match[1]].append(float(match[2]))
    if "vllm:num_requests_running" not in samples:
        raise ValueError("no 'vllm:num_requests_running' in it")
    return EngineLoad(
        running=_total(samples, "vllm:num_requests_running"),
        waiting=_total(samples, "vllm:num_requests_waiting"),
        kv_used=max(samples.get("vllm:kv_cache_usage_perc", [0.0])),
        steps=_total(samples, "vllm:iteration_tokens_total_count"),
        prompt_tokens=_total(samples, "vllm:prompt_tokens_total"),
        cached_tokens=_total(samples, "vllm:prompt_tokens_cached_total"),
        output_tokens=_total(samples, "vllm:generation_tokens_total"),
        preemptions=_total(samples, "vllm:num_preemptions_total"),
    )


def _total(samples: Mapping[str, list[float]], name: str) -> int:
    return int(sum(samples.get(name, [])))

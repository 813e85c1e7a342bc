"""What a vLLM server sends, read into values; and what it says when it does not answer as vLLM does."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finllm.errors import BackendError

_LEAST_LOGPROB = -9999.0
"""What vLLM writes for minus infinity, which JSON does not know."""


@dataclass(frozen=True)
class Served:
    """A model or LoRA adapter that a server answers for. An adapter has the `parent` that it changes."""

    id: str
    root: str
    parent: str | None
    context: int


@dataclass(frozen=True)
class Usage:
    """Tokens of one request; `cached` prompt tokens came from the server's prefix cache, where it says so."""

    prompt: int = 0
    output: int = 0
    cached: int = 0


@dataclass(frozen=True)
class Chunk:
    """A piece of a streamed answer. `ended` is why it ended, in the last piece that holds text."""

    text: str
    ended: str | None
    usage: Usage | None


@dataclass(frozen=True)
class Scores:
    """For each prompt the log-probability of every candidate token as its continuation."""

    logprobs: tuple[Mapping[int, float], ...]
    usage: Usage


def served(data: Any) -> tuple[Served, ...]:
    """The entries of `/v1/models`."""
    return tuple(
        Served(entry["id"], entry.get("root") or entry["id"], entry.get("parent"), int(entry.get("max_model_len") or 0))
        for entry in data["data"]
    )


def scores(data: Any, prompts: int, candidates: Sequence[int]) -> Scores:
    """The scores in a completion that was asked for `candidates` behind each of `prompts` prompts."""
    choices = sorted(data["choices"], key=lambda choice: choice["index"])
    found = [choice["logprobs"]["top_logprobs"][0] for choice in choices]
    if len(found) != prompts:
        raise ValueError(f"{len(found)} answers to {prompts} prompts")
    logprobs = tuple({token: _logprob(one[f"token_id:{token}"]) for token in candidates} for one in found)
    if any(score > 0.0 for one in logprobs for score in one.values()):
        raise ValueError("its scores are not log-probabilities; start it without --logprobs-mode")
    return Scores(logprobs, usage(data["usage"]))


def chunk(line: str) -> Chunk | None:
    """A line of a streamed completion; None where it holds nothing. Errors: BackendError where the server failed."""
    data = line.removeprefix("data:").strip()
    if not line.startswith("data:") or data == "[DONE]":
        return None
    piece = json.loads(data)
    if "error" in piece:
        raise BackendError(f"the server failed while it wrote: {piece['error'].get('message')}", fix="ask again")
    choice = piece["choices"][0] if piece["choices"] else {"text": ""}
    return Chunk(choice["text"], choice.get("finish_reason"), usage(piece["usage"]) if piece.get("usage") else None)


def usage(data: Mapping[str, Any]) -> Usage:
    details: Mapping[str, Any] = data.get("prompt_tokens_details") or {}
    return Usage(
        int(data["prompt_tokens"]), int(data.get("completion_tokens") or 0), int(details.get("cached_tokens") or 0)
    )


def _logprob(value: Any) -> float:
    score = float(value)
    if math.isnan(score):
        raise ValueError("a score is not a number")
    return float("-inf") if score <= _LEAST_LOGPROB else score

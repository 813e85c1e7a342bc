"""What a vLLM server sends, read into values; and what it says when it does not answer as vLLM does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finllm.errors import BackendError

_LEAST_LOGPROB = -9999.0
"""What vLLM writes for minus infinity, which JSON does not know."""


class Refused(BackendError):
    """The server answered with the error `status` of HTTP."""

    def __init__(self, status: int, message: str, *, fix: str) -> None:
        super().__init__(message, fix=fix)
        self.status = status


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


class Understood:
    """Turns what a malformed answer raises while it is read into a BackendError that names `where` it came from."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError | KeyError | TypeError | IndexError | AttributeError):
            raise BackendError(
                f"{self._where} did not answer as vLLM does: {type(error).__name__} {error}",
                fix="point FINLLM_VLLM_URLS at a vLLM server, version 0.32 or later",
            ) from error


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


def refusal(url: str, status: int, content: bytes) -> Refused:
    """The error behind an answer that is not 200."""
    try:
        message = str(json.loads(content)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = content.decode("utf-8", "replace")[:200].strip()
    fixes = {
        400: "shorten the sources, or raise the server's --max-model-len",
        401: "set FINLLM_VLLM_API_KEY to the key that the server was started with",
        404: "set FINLLM_VLLM_MODEL to a model that it serves",
    }
    return Refused(status, f"{url} refused with {status}: {message}", fix=fixes.get(status, "see the server's log"))


def _logprob(value: Any) -> float:
    score = float(value)
    return float("-inf") if score <= _LEAST_LOGPROB else score

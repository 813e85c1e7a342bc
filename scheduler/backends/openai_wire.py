"""What a chat completion holds, read into values; and the probability of each value where one was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finllm.scheduler.backends.vllm_wire import Usage, usage

LEAST = 1e-9
"""Probability of a value of which nothing is told: neither it nor room for it is among the alternatives."""
_ROUNDING = 1e-3
"""By how much a log-probability may exceed 0 before it is none."""


@dataclass(frozen=True)
class Token:
    """A token of an answer: its text, and the probabilities of the alternatives at its place, itself among them."""

    text: str
    likely: Mapping[str, float]


@dataclass(frozen=True)
class Reply:
    """An answer. `tokens` and `usage` are None where the server does not give them."""

    text: str
    tokens: tuple[Token, ...] | None
    usage: Usage | None


def reply(data: Any) -> Reply:
    """A chat completion. Errors: ValueError, KeyError, TypeError or IndexError for anything else, an empty one too."""
    choice = data["choices"][0]
    text = choice["message"]["content"]
    if not isinstance(text, str) or not text.strip():
        raise ValueError("the answer is empty")
    scored: dict[str, Any] = choice.get("logprobs") or {}
    found: list[Any] | None = scored.get("content")
    tokens = tuple(_token(one) for one in found) if found else None
    return Reply(text, tokens, usage(data["usage"]) if data.get("usage") else None)


def served_models(data: Any) -> dict[str, int]:
    """The models of `/v1/models`, and the context of each in tokens where the server tells, else 0."""
    found: dict[str, int] = {}
    for entry in data["data"]:
        meta: dict[str, Any] = entry.get("meta") or {}
        told: Any = entry.get("max_model_len") or entry.get("context_length") or meta.get("n_ctx") or 0
        found[str(entry["id"])] = int(told)
    return found


def value_scores(tokens: Sequence[Token], start: int, values: Sequence[str]) -> list[float]:
    """Log-probability of each value (any common offset), where the answer has one at character `start`.

    A token may begin before the value and run beyond it; where several values fit one, the next token tells them apart,
    and off the way that was taken they share its probability alike. A value of which nothing is told has at most what
    the last alternative has. Errors: ValueError where the tokens do not reach there.
    """
    mass = dict.fromkeys(values, 0.0)
    possible, reached, done, at = list(values), 1.0, 0, 0
    bound: float | None = None
    for token in tokens:
        lead, at = start + done - at, at + len(token.text)
        if at <= start + done:
            continue
        if bound is None:
            bound = min(*token.likely.values(), max(1.0 - sum(token.likely.values()), 0.0))
        onward: list[str] = []
        further = reached
        for text, probability in token.likely.items():
            rest = text[lead:]
            fits = [v for v in possible if _fits(v[done:] + '"', rest)] if text[:lead] == token.text[:lead] else []
            if text == token.text and len(fits) > 1:
                onward, further = fits, reached * probability
            else:
                for value in fits:
                    mass[value] += reached * probability / len(fits)
        if not onward:
            return [math.log(max(mass[value] or bound, LEAST)) for value in values]
        possible, reached, done = onward, further, done + len(token.text) - lead
    raise ValueError("the log-probabilities end before the value does")


def _fits(wanted: str, rest: str) -> bool:
    return bool(rest) and (wanted.startswith(rest) or rest.startswith(wanted))


def _token(row: Mapping[str, Any]) -> Token:
    likely = {str(one["token"]): _probability(one["logprob"]) for one in row.get("top_logprobs") or ()}
    own = _probability(row["logprob"])
    return Token(str(row["token"]), {**likely, str(row["token"]): likely.get(str(row["token"]), own)})


def _probability(value: Any) -> float:
    score = float(value)
    if math.isnan(score) or score > _ROUNDING:
        raise ValueError(f"{value!r} is no log-probability")
    return math.exp(min(score, 0.0))

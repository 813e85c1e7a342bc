"""Scoring the values of a field by their tokens: by the first one where all differ in it, else whole value by value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Tokens = tuple[int, ...]


def beginnings(values: Sequence[Tokens]) -> list[Tokens]:
    """Behind which tokens, after the stem, log-probabilities are needed; `()` is right behind the stem."""
    if by_first(values):
        return [()]
    return sorted({value[:length] for value in values for length in range(len(value))})


def candidates(values: Sequence[Tokens], beginning: Tokens) -> list[int]:
    """The tokens that may follow a beginning."""
    at = len(beginning)
    return sorted({value[at] for value in values if len(value) > at and value[:at] == beginning})


def value_scores(values: Sequence[Tokens], found: Mapping[Tokens, Mapping[int, float]]) -> list[float]:
    """The log-probability of each value, from those of the tokens behind each beginning.

    By first token the offset may be any; whole values need log-probabilities that are normalised.
    """
    if by_first(values):
        return [found[()][value[0]] for value in values]
    return [sum(found[value[:at]][value[at]] for at in range(len(value))) for value in values]


def by_first(values: Sequence[Tokens]) -> bool:
    """Whether the first token of a value decides."""
    return len({value[0] for value in values}) == len(values)

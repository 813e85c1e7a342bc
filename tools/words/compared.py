"""Compares two texts: on how many factors they state the same move, and on how many another."""

from __future__ import annotations

from dataclasses import dataclass

from finllm.tools.words.lexical import balance, read_factors


@dataclass(frozen=True)
class Compared:
    """Counts of factors: moved as read, and moved otherwise (the other way, or not at all)."""

    as_read: int
    otherwise: int


def compare(reading: str, market: str) -> Compared:
    """Hold what `market` states of each factor against what `reading` states; what neither names does not count."""
    read, measured = (
        {factor: balance(said) for factor, said in read_factors(text).items()} for text in (reading, market)
    )
    both = read.keys() & measured.keys()
    as_read = sum(read[factor] == measured[factor] for factor in both)
    return Compared(as_read, len(both) - as_read)

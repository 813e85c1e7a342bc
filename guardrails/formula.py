"""Does formulas again: a derived row must hold what its formula gives over the rows that it names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from finllm.tools.evidence import Evidence, EvidenceTable, is_money

_ID = re.compile(r"\bE[1-9][0-9]*\b")
_TOKEN = re.compile(r"\s*(?:(?P<id>E[1-9][0-9]*)|(?P<number>\d+(?:\.\d+)?)|(?P<name>[a-z]+)|(?P<sign>[-+−*×/(),]))")
_PART = re.compile(r"part of (E[1-9][0-9]*)")
_COUNT = re.compile(r"count\(((?:E[1-9][0-9]*(?:, )?)*)\)")
_NAMES: dict[str, Callable[[list[float]], float]] = {
    "sum": math.fsum,
    "min": min,
    "max": max,
    "abs": lambda of: abs(of[0]),
}
_RELATIVE = 1e-9
_HALF_CENT = 0.005
"""Money rows hold whole cents, so that a term may be off by half of one."""


class _NotArithmeticError(Exception):
    """The formula is prose: it names a method, not a sum that could be done again."""


def cited_by(row: Evidence) -> list[str]:
    """Ids of the rows that a row's formula names, in order."""
    return _ID.findall(row.formula or "")


@dataclass(frozen=True)
class Again:
    """A formula done again: `found` is what it gives, `of` the row that must say so: the row itself or, where that is
    `part of` another, the whole, which its parts must sum to."""

    found: float
    of: Evidence
    terms: int

    @property
    def equal(self) -> bool:
        """Whether the row says what was found; money to half a cent for each term and the whole."""
        return not isinstance(self.of.value, str) and _same(
            self.found, self.of.value, is_money(self.of.unit), self.terms
        )


def again(row: Evidence, table: EvidenceTable) -> Again | None:
    """A row's formula done again; None where it names a method and not a sum. The rows that it names must be there.

    Arithmetic (`sum(E1, E2)`, `E3 / E4`) gives the row's value, `count(E1, E2)` the number of rows; rows that are
    `part of` another and say the same `what` sum to it.
    """
    formula = row.formula or ""
    if part := _PART.fullmatch(formula):
        parts = [float(one.value) for one in table if (one.formula, one.what) == (row.formula, row.what)]
        return Again(math.fsum(parts), table[part[1]], len(parts))
    if counted := _COUNT.fullmatch(formula):
        return Again(float(len(_ID.findall(counted[1]))), row, 0)
    try:
        return Again(_Reader(formula, table).value(), row, len(cited_by(row)))
    except _NotArithmeticError:
        return None


def misfit(row: Evidence, table: EvidenceTable) -> str | None:
    """What is wrong with a derived row, or None. A formula in prose is held to one thing: that its rows are there."""
    if row.formula is None:
        return None
    missing = [id for id in cited_by(row) if id not in table]
    if missing:
        return f"its formula {row.formula!r} names {', '.join(missing)}, which no row is"
    if row.id in cited_by(row):
        return f"its formula {row.formula!r} names itself"
    found = again(row, table)
    if found is None or found.equal:
        return None
    if found.of.id != row.id:
        return f"the rows {row.what!r} sum to {found.found:g}, and {found.of.id} is {found.of.value!r}"
    return f"its formula {row.formula!r} gives {found.found:g}, not {row.value!r}"


def _same(found: float, value: float, money: bool, terms: int) -> bool:
    return math.isclose(found, value, rel_tol=_RELATIVE, abs_tol=_HALF_CENT * (terms + 1) if money else 1e-12)


class _Reader:
    """A recursive-descent reader of `sum(E1, E2) / E3 − 1`."""

    def __init__(self, formula: str, table: EvidenceTable) -> None:
        self._table = table
        self._tokens: list[re.Match[str]] = []
        at = 0
        while at < len(formula.rstrip()):
            match = _TOKEN.match(formula, at)
            if match is None or (match["name"] and match["name"] not in _NAMES):
                raise _NotArithmeticError
            self._tokens.append(match)
            at = match.end()
        if not any(token["id"] for token in self._tokens):
            raise _NotArithmeticError

    def value(self) -> float:
        found = self._sum()
        if self._tokens:
            raise _NotArithmeticError
        return found

    def _next(self, signs: str) -> str | None:
        if self._tokens and self._tokens[0]["sign"] and self._tokens[0]["sign"] in signs:
            return self._tokens.pop(0)["sign"]
        return None

    def _sum(self) -> float:
        found = self._product()
        while sign := self._next("+-−"):
            term = self._product()
            found = found + term if sign == "+" else found - term
        return found

    def _product(self) -> float:
        found = self._factor()
        while sign := self._next("*×/"):
            other = self._factor()
            if sign == "/" and other == 0:
                raise _NotArithmeticError
            found = found / other if sign == "/" else found * other
        return found

    def _factor(self) -> float:
        if self._next("-−"):
            return -self._factor()
        if self._next("("):
            found = self._sum()
            self._close()
            return found
        if not self._tokens:
            raise _NotArithmeticError
        token = self._tokens.pop(0)
        if token["number"]:
            return float(token["number"])
        if token["id"]:
            value = self._table[token["id"]].value
            if isinstance(value, str):
                raise _NotArithmeticError
            return value
        if token["name"]:
            return self._call(_NAMES[token["name"]])
        raise _NotArithmeticError

    def _call(self, function: Callable[[list[float]], float]) -> float:
        if not self._next("("):
            raise _NotArithmeticError
        found = [self._sum()]
        while self._next(","):
            found.append(self._sum())
        self._close()
        return function(found)

    def _close(self) -> None:
        if not self._next(")"):
            raise _NotArithmeticError

"""A result held against limits: what is breached, and what could not be checked and why."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Protocol

from finllm.tools.data.books.book import Exclusion
from finllm.tools.data.books.position import Portfolio
from finllm.tools.data.limits import EACH, Limits, LossCut
from finllm.tools.pnl.coverage import Coverage, down, named, up
from finllm.tools.pnl.outcome import Cents, EngineResult, ExpectedShortfall, Frozen, ReverseResult, ValueAtRisk, usd

WholeBook = Literal["total_loss", "var_975_1d", "es_975_1d", "coverage"]
BOOK = "book"
"""The subject of a limit on the whole book."""


class Breach(Frozen):
    """A loss beyond its limit, both positive; of the coverage both are shares, and it is under its limit.


    `subject` is the factor, sector or position, or `book`.
    """

    kind: LossCut | WholeBook
    subject: str
    limit: Cents
    loss: Cents

    @property
    def shown(self) -> tuple[str, str]:
        """The limit and what was found, as a table shows them."""
        if self.kind == "coverage":
            return f"{up(float(self.limit))} %", f"{down(float(self.loss))} %"
        return f"{self.limit:,.0f}", f"{self.loss:,.0f}"


class Unchecked(Frozen):
    """A limit that nothing was held against, and why. It is not met: nobody knows."""

    kind: LossCut | WholeBook
    subject: str
    why: str

    def __str__(self) -> str:
        return f"{self.subject} ({self.kind}): not checked: {self.why}"


class Cuts(Protocol):
    """A stressed P&L, in all and by factor, sector and position."""

    @property
    def total(self) -> Decimal: ...
    @property
    def by_factor(self) -> dict[str, Decimal]: ...
    @property
    def by_sector(self) -> dict[str, Decimal]: ...
    @property
    def by_position(self) -> dict[str, Decimal]: ...


@dataclass(frozen=True)
class Known:
    """What a check needs to know besides the P&L: coverage, what was left out, the run's factors, the tail risk."""

    coverage: Coverage
    exclusions: Sequence[Exclusion]
    factors: Collection[str]
    var: ValueAtRisk | None
    shortfall: ExpectedShortfall | None

    @classmethod
    def of(
        cls, result: EngineResult | ReverseResult, factors: Collection[str], coverage: Coverage | None = None
    ) -> Known:  # fmt: skip
        """What a result of the engine says; `coverage` in place of its own, which a record of an old engine lacks."""
        found = coverage or result.coverage
        assert found is not None
        return cls(found, result.exclusions, factors, result.var_975_1d, result.es_975_1d)


NO_LIMITS = "Not checked: there are no limits."


@dataclass(frozen=True)
class Held:
    """How a result stands to its limits; `limited` is False where there are none, so that nothing was checked."""

    breaches: tuple[Breach, ...] = ()
    unchecked: tuple[Unchecked, ...] = ()
    limited: bool = False


def hold(cuts: Cuts, known: Known, limits: Limits) -> Held:
    """Every loss above its limit, and every limit that could not be checked. Names are matched whatever their case.

    The key `each` limits every name that has no limit of its own. A limit within which the stressed part of the book
    stays is not checked where too much of the book is not stressed: what is left out could breach it.
    """
    breaches: list[Breach] = []
    unchecked: list[Unchecked] = []
    by_cut: dict[LossCut, dict[str, Decimal]] = {
        "loss_by_factor": cuts.by_factor, "loss_by_sector": cuts.by_sector, "loss_by_position": cuts.by_position,
    }  # fmt: skip
    for kind, gains in by_cut.items():
        allowed = {name.casefold(): limit for name, limit in getattr(limits, kind).items()}
        over = list(_over(kind, gains, allowed))
        breaches += over
        names = [name for name in getattr(limits, kind) if name.casefold() not in {b.subject.casefold() for b in over}]
        unchecked += _open(kind, names, gains, known)
    for found in _of_the_book(cuts, known, limits):
        if isinstance(found, Breach):
            breaches.append(found)
        else:
            unchecked.append(found)
    return Held(tuple(breaches), tuple(unchecked), not limits.allow_all)


def restricted_in(portfolio: Portfolio, limits: Limits) -> tuple[str, ...]:
    """Ids of what the portfolio holds although it is restricted: itself or what it is on, read or refused, stressed or
    left out."""
    if not limits.restricted:
        return ()
    held = [one.id for one in portfolio.positions if limits.holds(one.id, one.name, one.underlying)]
    return (*held, *(one.id for one in portfolio.refused if limits.holds(one.id, one.name)))


def _over(kind: LossCut, gains: Mapping[str, Decimal], allowed: Mapping[str, float]) -> Iterator[Breach]:
    for subject, gain in gains.items():
        limit = allowed.get(subject.casefold(), allowed.get(EACH))
        if limit is not None and -gain > usd(limit):
            yield Breach(kind=kind, subject=subject, limit=usd(limit), loss=-gain)


def _open(kind: LossCut, names: list[str], gains: Mapping[str, Decimal], known: Known) -> Iterator[Unchecked]:
    """The limits of these names that the stressed part of the book cannot answer for."""
    cut = {name.casefold() for name in gains}
    for name in names:
        if why := _why_open(kind, name, cut, known):
            yield Unchecked(kind=kind, subject=name, why=why)


def _why_open(kind: LossCut, name: str, cut: set[str], known: Known) -> str | None:
    folded = name.casefold()
    if kind == "loss_by_factor":
        if folded not in {one.casefold() for one in (*known.factors, EACH, *cut)}:
            return "no factor of this run; name it with --factor, or add its history"
        return known.coverage.gap
    word = kind.removeprefix("loss_by_")
    out = [one for one in known.exclusions if _concerns(kind, folded, one.id, one.sector, cut)]
    if folded == EACH:
        return f"left out: {named([one.id for one in out], len(out))}" if out else None
    if folded not in cut and not out:
        return f"no {word} of that name"
    if kind == "loss_by_position":
        return f"left out: {out[0].reason}" if folded not in cut else None
    return f"left out of it: {named([one.id for one in out], len(out))}" if out else None


def _concerns(kind: LossCut, folded: str, id: str, sector: str | None, cut: set[str]) -> bool:
    """Whether a position that is left out belongs to what is limited."""
    own = id if kind == "loss_by_position" else sector
    if folded == EACH:
        return own is None or kind == "loss_by_position" or own.casefold() not in cut
    return own is not None and own.casefold() == folded


def _of_the_book(cuts: Cuts, known: Known, limits: Limits) -> Iterator[Breach | Unchecked]:
    """The limits on the whole book: its loss, its VaR and ES, and how much of it is stressed."""
    tails: tuple[tuple[WholeBook, float | None, ValueAtRisk | ExpectedShortfall | None], ...] = (
        ("var_975_1d", limits.var_975_1d, known.var), ("es_975_1d", limits.es_975_1d, known.shortfall),
    )  # fmt: skip
    gap, least = known.coverage.gap, known.coverage.thresholds.least
    if limits.total_loss is not None:
        if -cuts.total > usd(limits.total_loss):
            yield Breach(kind="total_loss", subject=BOOK, limit=usd(limits.total_loss), loss=-cuts.total)
        elif gap:
            yield Unchecked(kind="total_loss", subject=BOOK, why=gap)
    for kind, limit, tail in tails:
        if limit is None:
            continue
        if tail is None:
            yield Unchecked(kind=kind, subject=BOOK, why="there is no history to take it from")
        elif tail.loss > usd(limit):
            yield Breach(kind=kind, subject=BOOK, limit=usd(limit), loss=tail.loss)
        elif tail.coverage < least - 1e-12 or gap:
            without = f", without {named(tail.missing, len(tail.missing))}" if tail.missing else ""
            yield Unchecked(kind=kind, subject=BOOK, why=f"it covers {down(tail.coverage)} % of the book{without}")
    if limits.coverage is not None and known.coverage.counted < limits.coverage - 1e-12:
        yield Breach(kind="coverage", subject=BOOK, limit=_share(limits.coverage), loss=_share(known.coverage.counted))


def _share(share: float) -> Decimal:
    """A share to four places, never more than it is."""
    return Decimal(int(share * 10_000 + 1e-6)) / 10_000

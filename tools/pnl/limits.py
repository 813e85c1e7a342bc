"""Losses held against limits: by factor, sector and position, and the one-day value at risk."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, Protocol

from finllm.tools.data.limits import Limits
from finllm.tools.pnl.outcome import Cents, Frozen, ValueAtRisk, usd

LossCut = Literal["loss_by_factor", "loss_by_sector", "loss_by_position"]


class Breach(Frozen):
    """A loss beyond its limit, both positive USD. `subject` is the factor, sector or position, or `book` for VaR."""

    kind: LossCut | Literal["var_975_1d"]
    subject: str
    limit: Cents
    loss: Cents


class Cuts(Protocol):
    """A stressed P&L, USD, by factor, sector and position."""

    @property
    def by_factor(self) -> dict[str, Decimal]: ...
    @property
    def by_sector(self) -> dict[str, Decimal]: ...
    @property
    def by_position(self) -> dict[str, Decimal]: ...


def breaches(cuts: Cuts, var: ValueAtRisk | None, limits: Limits) -> list[Breach]:
    """Every loss above its limit. The key `each` limits every name that has no limit of its own."""
    held: tuple[tuple[LossCut, dict[str, Decimal], dict[str, float]], ...] = (
        ("loss_by_factor", cuts.by_factor, limits.loss_by_factor),
        ("loss_by_sector", cuts.by_sector, limits.loss_by_sector),
        ("loss_by_position", cuts.by_position, limits.loss_by_position),
    )
    found: list[Breach] = []
    for kind, gains, allowed in held:
        for subject, gain in gains.items():
            limit = allowed.get(subject, allowed.get("each"))
            if limit is not None and -gain > usd(limit):
                found.append(Breach(kind=kind, subject=subject, limit=usd(limit), loss=-gain))
    most = limits.var_975_1d
    if var is not None and most is not None and var.loss > usd(most):
        found.append(Breach(kind="var_975_1d", subject="book", limit=usd(most), loss=var.loss))
    return found

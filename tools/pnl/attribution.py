"""Attribution: a scenario's P&L by position and row in whole cents, so that every cut sums exactly to the total."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from finllm.tools.data.books.book import Holding
from finllm.tools.pnl.kernel import Sensitivities, local_gains, local_terms
from finllm.tools.pnl.outcome import IDIOSYNCRATIC, INTERACTION

CENT = Decimal("0.01")


@dataclass(frozen=True)
class Attribution:
    """P&L in the book's currency: every cut adds up the same cells of whole cents, so each sums to `total` exactly."""

    total: Decimal
    by_position: dict[str, Decimal]
    by_factor: dict[str, Decimal]
    by_sector: dict[str, Decimal]
    by_direction: dict[str, Decimal]


def attribute(
    book: Sensitivities,
    holdings: Sequence[Holding],
    moves: np.ndarray,
    moved: Sequence[str],
    realised: Mapping[str, float] | None = None,
) -> Attribution:
    """Attribute the P&L of one scenario; `moves` (K,) in the order of the book's factors, `moved` those with a row.

    A factor's row has what it explains alone, `interaction` the rest of the model: cross terms, with the exchange rate
    too, and floors. A holding in `realised` gains that much at the rate of today instead (its own return in a replay):
    beyond its factors it is `idiosyncratic`.
    """
    realised = realised or {}
    local = local_terms(book, moves)
    gains = local_gains(book, moves[None, :])[:, 0]
    specific = np.zeros(len(holdings))
    for row, holding in enumerate(holdings):
        if holding.id in realised:
            gains[row] = realised[holding.id]
            specific[row] = gains[row] - float(local[row].sum())
    own = local if book.fx is None else book.fx.alone(local, moves)
    if book.fx is not None:
        gains = book.fx.translated(gains[:, None], moves[None, :])[:, 0]
    cells: dict[tuple[int, str], int] = {}
    for row, column in zip(*np.nonzero(own), strict=True):
        cells[int(row), book.factors[column]] = _cents(float(own[row, column]))
    rest = gains - own.sum(axis=1) - specific
    for row, holding in enumerate(holdings):
        if holding.id in realised:
            cells[row, IDIOSYNCRATIC] = _cents(float(specific[row]))
        if abs(rest[row]) >= 0.005:
            cells[row, INTERACTION] = _cents(float(rest[row]))
    rows = [*moved, *([IDIOSYNCRATIC] if realised else []), INTERACTION]
    loaded = {name for _, name in cells}
    shown = [name for name in rows if name in loaded or name in (IDIOSYNCRATIC, INTERACTION)]
    return Attribution(
        total=_usd(sum(cells.values())),
        by_position=_cut(cells, book.positions, lambda row, _: book.positions[row]),
        by_factor=_cut(cells, shown, lambda _, name: name),
        by_sector=_cut(cells, book.sectors, lambda row, _: book.sectors[book.sector[row]]),
        by_direction=_cut(cells, ("long", "short"), lambda row, _: direction_of(holdings[row])),
    )


def direction_of(holding: Holding) -> str:
    """`short` for a negative market value, or notional or delta where there is no market value; else `long`."""
    size = holding.notional or holding.delta or 0.0
    return "short" if size < 0 else "long"


def _cut(
    cells: Mapping[tuple[int, str], int], names: Sequence[str], key: Callable[[int, str], str]
) -> dict[str, Decimal]:
    sums = dict.fromkeys(names, 0)
    for (row, name), amount in cells.items():
        sums[key(row, name)] = sums.get(key(row, name), 0) + amount
    return {name: _usd(amount) for name, amount in sums.items()}


def _cents(amount: float) -> int:
    return int((Decimal(float(amount)) * 100).to_integral_value())  # half even, from the exact binary value


def _usd(cents: int) -> Decimal:
    return Decimal(cents) * CENT

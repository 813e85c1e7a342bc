"""Attribution: a scenario's P&L by position and row in whole cents, so that every cut sums exactly to the total."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from finllm.tools.data.books.book import Holding
from finllm.tools.pnl.kernel import Sensitivities, local_gains, local_terms
from finllm.tools.pnl.outcome import IDIOSYNCRATIC, INTERACTION, TIME

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
    time: np.ndarray | None = None,
) -> Attribution:
    """Attribute the P&L of one scenario; `moves` (K,) in the order of the book's factors, `moved` those with a row.

    A factor's row has what it explains alone, `interaction` the rest of the model: cross terms, with the exchange rate
    too, and floors. A holding in `realised` gains that much at the rate of today instead (its own return in a replay):
    beyond its factors it is `idiosyncratic`. `time` (P,): what a book that has aged gained by that, see `Aged`.
    """
    cells = _cells(book, holdings, moves, realised or {}, time)
    names = (*book.factors, IDIOSYNCRATIC, TIME, INTERACTION)
    loaded = dict.fromkeys(names[at] for at in cells.columns[np.sort(np.unique(cells.columns, return_index=True)[1])])
    rows = [*moved, *([IDIOSYNCRATIC] if realised else []), *([TIME] if time is not None else []), INTERACTION]
    shown = [name for name in rows if name in loaded or name in (IDIOSYNCRATIC, TIME, INTERACTION)]
    by_factor = dict(zip(names, cells.sums(cells.columns, len(names)), strict=True))
    short = np.array([direction_of(holding) == "short" for holding in holdings], dtype=int)
    return Attribution(
        total=cells.total,
        by_position=_named(book.positions, cells.sums(cells.rows, len(book.positions))),
        by_factor={name: by_factor[name] for name in dict.fromkeys((*shown, *loaded))},
        by_sector=_named(book.sectors, cells.sums(book.sector[cells.rows], len(book.sectors))),
        by_direction=_named(("long", "short"), cells.sums(short[cells.rows], 2)),
    )


def total_of(
    book: Sensitivities, holdings: Sequence[Holding], moves: np.ndarray, realised: Mapping[str, float],
    time: np.ndarray | None = None,
) -> Decimal:  # fmt: skip
    """The total that `attribute` gives, without its cuts."""
    return _cells(book, holdings, moves, realised, time).total


@dataclass(frozen=True)
class _Cells:
    """The P&L in whole cents of a position (`rows`) by a factor or what is beyond them (`columns`)."""

    rows: np.ndarray
    columns: np.ndarray
    cents: np.ndarray

    @property
    def total(self) -> Decimal:
        return _usd(int(self.cents.sum()))

    def sums(self, groups: np.ndarray, count: int) -> list[Decimal]:
        """The sum of each of `count` groups; `groups` says which one a cell is in."""
        sums = np.zeros(count, dtype=self.cents.dtype)
        np.add.at(sums, groups, self.cents)
        return [_usd(cents) for cents in sums.tolist()]


def _cells(
    book: Sensitivities, holdings: Sequence[Holding], moves: np.ndarray, realised: Mapping[str, float],
    time: np.ndarray | None,
) -> _Cells:  # fmt: skip
    """The cells of one scenario: factors in their order, what is idiosyncratic, what time alone did, interaction."""
    local = local_terms(book, moves)
    gains = local_gains(book, moves[None, :])[:, 0]
    specific = np.zeros(len(holdings))
    replayed = [row for row, holding in enumerate(holdings) if holding.id in realised] if realised else []
    for row in replayed:
        gains[row] = realised[holdings[row].id]
        specific[row] = gains[row] - float(local[row].sum())
    own = local if book.fx is None else book.fx.alone(local, moves)
    if book.fx is not None:
        gains = book.fx.translated(gains[:, None], moves[None, :])[:, 0]
    rest = gains - own.sum(axis=1) - specific
    rows, columns = np.nonzero(own)
    beyond = np.flatnonzero(np.abs(rest) >= 0.005)
    kinds, passed = len(book.factors), np.zeros(len(holdings)) if time is None else time
    older = np.flatnonzero(passed)
    return _Cells(
        np.concatenate([rows, np.array(replayed, dtype=int), older, beyond]),
        np.concatenate([columns, np.full(len(replayed), kinds), np.full(len(older), kinds + 1),
                        np.full(len(beyond), kinds + 2)]),
        _cents(np.concatenate([own[rows, columns], specific[np.array(replayed, dtype=int)], passed[older],
                               rest[beyond]])),
    )  # fmt: skip


def direction_of(holding: Holding) -> str:
    """`short` for a negative market value, or notional or delta where there is no market value; else `long`."""
    size = holding.notional or holding.delta or 0.0
    return "short" if size < 0 else "long"


def _named(names: Sequence[str], amounts: Sequence[Decimal]) -> dict[str, Decimal]:
    return dict(zip(names, amounts, strict=True))


def _cents(amounts: np.ndarray) -> np.ndarray:
    """Amounts in whole cents, half even, from the exact binary value: int64, or Python's integers beyond it.

    A hundredfold that is within its rounding of a half is done in decimals, as is one that a float does not hold.
    """
    scaled = amounts * 100
    size = np.abs(scaled)
    near = np.abs(size - np.floor(size) - 0.5) <= size * 2.0**-50
    unsure = np.flatnonzero(near | ~(size < 2.0**49))
    exact = [int((Decimal(float(amounts[at])) * 100).to_integral_value()) for at in unsure]
    fits = len(amounts) * max([2**49, *map(abs, exact)]) < 2**63
    cents = np.where(size < 2.0**49, np.rint(scaled), 0.0).astype(np.int64)
    if not fits:
        cents = cents.astype(object)
    cents[unsure] = exact
    return cents


def _usd(cents: int) -> Decimal:
    return Decimal(cents) * CENT

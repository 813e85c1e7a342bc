"""What the stress engine answers: frozen results, every cut of the P&L in whole cents and exactly the total."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, PlainSerializer

from finllm.plain_text import trading_days
from finllm.tools.data.books.book import Exclusion
from finllm.tools.data.factors import MoveUnit, Origin
from finllm.tools.pnl.coverage import Coverage, part_of_the_book

ENGINE = 9
"""Version of the arithmetic, on record with every run: raised by whatever changes a figure. 1 took plain least squares
in a run and shrunk betas in `stress`; 2 took bonds and options by slopes, which could lose more than they cost,
measured no coverage, and had a VaR of the stressed part alone. 3 took the P&L's share of the net value, which turns its
sign where more is short than long, and American options by a coarser scheme. 4 let shares load on the index alone,
held factors without a shock still, and took all of them on one window. 5 took loads beyond the index as linear in a
factor's move, however large, and completed factors without data in a replay. 6 drew the band of factors that are held
still as if they were free, and a wide level narrower than a low one where the shocks are doubted. 7 measured no
liquidity where text and market differ. 8 took a tenth of what is read for heeded by the market, in its bands."""
INTERACTION = "interaction"
"""Row for what no single factor explains: cross terms of a contract's factors, and the floor at a price of zero."""
IDIOSYNCRATIC = "idiosyncratic"
"""Row for a replayed instrument's own return beyond beta times the index."""
TIME = "time"
"""Row for what contracts gain by the time that passes, nothing else moved."""

Cents = Annotated[Decimal, PlainSerializer(float, return_type=float, when_used="json")]
"""Money of the book's currency in whole cents: a Decimal in Python, a number in JSON."""
RARE = 1e-5
"""Probability below which a Gaussian's tail says no more than that it is small."""
Method = Literal["convex", "local", "given"]
BandPart = Literal["other factors", "positions' own", "errors of loads"]
"""What makes a band wide: factors that neither a person nor history shocks, the positions' own returns, and errors of
their loads on the factors."""


def usd(amount: float) -> Decimal:
    """An amount in whole cents."""
    return Decimal(float(amount)).quantize(Decimal("0.01"), ROUND_HALF_EVEN)


def unseen_words(unseen: Sequence[str]) -> str:
    """Which factors a replay holds still for want of data, and how to have them completed."""
    return f"No data in that window: {', '.join(unseen)} held still; --propagate completes what has a history."


def aged_words(until: dt.date) -> str:
    """That time passes, and to which day."""
    return f"Time passes: options, forwards and bonds with terms are revalued at {until}."


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Interval(Frozen):
    """Where the P&L lies with probability `level`, in the book's currency.

    `parts`: the share of its width that each `BandPart` makes, which add to one; engines before 9 had more of them.
    `untested`: why nobody tested that it holds so often; empty where it was tested.
    """

    lower: Cents
    upper: Cents
    level: float
    method: str
    parts: dict[str, float] = {}
    untested: str = "made before levels were tested"

    @property
    def name(self) -> str:
        """What the interval may be called."""
        return f"model band of {self.level:.0%}, level not tested" if self.untested else f"{self.level:.0%} band"

    def ends_at(self, total: Decimal) -> bool:
        """Whether it was drawn out to the P&L that it is about, which what is left open would not reach."""
        return total in (self.lower, self.upper) and self.lower < self.upper

    @property
    def shares(self) -> str:
        """The parts in words, the largest first."""
        ordered = sorted(self.parts.items(), key=lambda part: -part[1])
        return ", ".join(f"{name} {share:.0%}" for name, share in ordered)


class ValueAtRisk(Frozen):
    """One-day loss, positive, that current holdings exceed on 2.5 % of the days of `window`; after a shock, of those
    days at the volatility that it leaves behind (`risk.filtered`).

    `coverage` is the share of the book's gross value, with what was left out of it, that the window has prices for;
    `missing` names the holdings that it has none for.
    """

    loss: Cents
    level: float
    window: str
    coverage: float
    missing: tuple[str, ...]


class AppliedShock(Frozen):
    """One factor's move over the horizon, in its own unit (decimal return, bp or points).

    `sigma`: its size in standard deviations of the factor's moves over that horizon in `window`. `mahalanobis`: the
    distance of the whole vector of direct shocks with history, the same on each of their rows. `given_others`: σ of
    the row about its mean given the other direct shocks; `implied`: that mean near the shocks. `lower`, `upper`: the
    band of a completed move. None where there is no figure. `flags` say what to distrust: `extrapolated`,
    `contradictory`, `unpropagated`, ….
    """

    factor: str
    label: str
    move: float
    unit: MoveUnit
    origin: Origin
    sigma: float | None
    mahalanobis: float | None
    given_others: float | None
    implied: float | None = None
    lower: float | None
    upper: float | None
    window: str
    flags: tuple[str, ...]


def chance_words(chance: float) -> str:
    """A probability as people say it."""
    if chance < RARE:
        return f"less than 1 in {1 / RARE:,.0f}"
    return f"{chance:.2%}" if chance < 0.1 else f"{chance:.0%}"


def beyond(squared: float, degrees: int) -> float:
    """The probability that χ² with so many degrees of freedom lies beyond a value: the finite sums of Abramowitz and
    Stegun (1964), 26.4.4 and 26.4.5. Without scipy, whose functions take a tenth of a command's time to load.
    """
    half = squared / 2
    start = 0.5 if degrees % 2 else 0.0
    terms = (math.exp(-half + (i + start) * math.log(half) - math.lgamma(i + start + 1)) for i in range(degrees // 2))
    if half <= 0:
        return 1.0
    return (math.erfc(math.sqrt(half)) if degrees % 2 else 0.0) + math.fsum(terms)


class JointDistance(Frozen):
    """How far the direct shocks with history are from no move together, beside `count` past moves of the same factors.

    `distance` and the `farthest` past one: Mahalanobis, under one covariance. `nearer`: the share of past moves that
    went less far. `apart`: where none went farther, the factor that sets the shocks apart from history. `factors`: how
    many factors the shocks are of, None in records from before it was kept.
    """

    distance: float
    nearer: float
    farthest: float
    count: int
    window: str
    apart: str | None
    factors: int | None = None

    @property
    def chance(self) -> float | None:
        """The probability of moves at least as far from none under the factor model: a Gaussian of that covariance, so
        that the squared distance is χ² with as many degrees of freedom as factors (Mahalanobis 1936)."""
        return None if not self.factors else beyond(self.distance**2, self.factors)

    @property
    def words(self) -> str:
        """In a sentence."""
        said = f"Together the shocks are {self.distance:.1f} σ from no move"
        if self.chance is not None:
            said += f" (moves at least as far have {chance_words(self.chance)} under the factor model)"
        if self.apart is None:
            return f"{said}, farther than {self.nearer:.1%} of {self.count:,} {self.window}."
        return (f"{said}, beyond history: none of {self.count:,} {self.window}, went farther than"
                f" {self.farthest:.1f} σ. {self.apart} sets them apart.")  # fmt: skip


class ExpectedShortfall(Frozen):
    """Mean one-day loss beyond the VaR, positive, at `level` over `window`; `coverage` as of the VaR."""

    loss: Cents
    level: float
    window: str
    coverage: float = 1.0
    missing: tuple[str, ...] = ()


class Components(Frozen):
    """What each part adds to the one-day VaR and ES before the shocks, positive where it adds to the loss.

    Each cut sums exactly to its measure. `words`: the days that the parts are the mean losses of. Of a book of many
    positions the largest are named, and the others are one row.
    """

    level: float
    var_by_position: dict[str, Cents]
    es_by_position: dict[str, Cents]
    var_by_factor: dict[str, Cents]
    es_by_factor: dict[str, Cents]
    words: str


class HorizonRow(Frozen):
    """The same story after fewer trading days. Rows nest and do not add: each is a total from today."""

    horizon: int
    total: Cents
    lower: Cents | None
    upper: Cents | None


class LiquidityRow(Frozen):
    """One step of the cascade: ES over ten days of the `factors` whose liquidity horizon is at least `days`.

    `scaled`: that ES times √((days − days before)/10), whose squares add up to that of the total.
    """

    days: int
    factors: tuple[str, ...]
    es_10d: Cents
    scaled: Cents


class Liquidity(Frozen):
    """Liquidity-adjusted expected shortfall, positive (Basel Committee, MAR33.4 and MAR33.5)."""

    total: Cents
    level: float
    rows: tuple[LiquidityRow, ...]
    without: tuple[str, ...]
    """Factors that the book loads on and that have no history to take an ES from."""
    method: str


class Analogue(Frozen):
    """The past episode whose moves are nearest to the shocks, and what the book would do were it to repeat.

    `distance`: Mahalanobis distance between the two vectors, each in σ of its own horizon, over `shared` factors.
    """

    id: str
    title: str
    start: dt.date
    end: dt.date
    distance: float
    shared: tuple[str, ...]
    moves: dict[str, float]
    total: Cents
    by_factor: dict[str, Cents]


class EngineResult(Frozen):
    """P&L in `currency` of a book under `shocks` over `horizon` trading days; all of its money is in that.

    `by_position`, `by_factor` (with `interaction`, and `idiosyncratic` in a replay), `by_sector` and `by_direction`
    (`long`, `short`) each sum exactly to `total`. `mahalanobis` is the distance of the direct shocks that have history.
    `alignment` says at which frequency, over which window and by which rule the factors' moves were put side by side.
    `by_day`: the P&L after each day up to the horizon, of a large book after those of `by_horizon` alone; empty in
    records from before it was worked out. `interval` is None where nothing is left open: every factor is held, and no
    position has a regression. `engine` is the version of the arithmetic. `book_value` is net, `gross_value` what the
    holdings count for in coverage; that and `coverage` are None in records from before they were measured.
    `components` are worked out where they are asked for. `replayed` is the window of a replay, `days` its trading days,
    and `unseen` names the factors that the book loads on and that have no data in it, which are held still. `aged`: the
    day up to which time passes, with a row `time` in `by_factor`; None where none does.
    """

    engine: int = ENGINE

    as_of: dt.date
    currency: str = "USD"
    horizon: int
    book_value: Cents
    gross_value: Cents | None = None
    total: Cents
    by_position: dict[str, Cents]
    by_factor: dict[str, Cents]
    by_sector: dict[str, Cents]
    by_direction: dict[str, Cents]
    by_horizon: tuple[HorizonRow, ...]
    by_day: tuple[HorizonRow, ...] = ()
    interval: Interval | None
    var_975_1d: ValueAtRisk | None
    var_975_1d_after: ValueAtRisk | None
    es_975_1d: ExpectedShortfall | None
    es_975_1d_after: ExpectedShortfall | None
    liquidity: Liquidity | None
    shocks: tuple[AppliedShock, ...]
    mahalanobis: float | None
    analogue: Analogue | None
    alignment: str
    exclusions: tuple[Exclusion, ...]
    notes: tuple[str, ...]
    coverage: Coverage | None = None
    components: Components | None = None
    replayed: tuple[dt.date, dt.date] | None = None
    days: int | None = None
    unseen: tuple[str, ...] = ()
    joint: JointDistance | None = None
    aged: dt.date | None = None

    @property
    def over(self) -> str:
        """How long the shocks take, in words: the replayed window with its trading days, or the horizon."""
        aged = f", aged to {self.aged}" if self.aged else ""
        if self.replayed is None:
            return f"over {trading_days(self.horizon)}{aged}"
        return f"a replay of {self.replayed[0]} to {self.replayed[1]} ({self.days} trading days){aged}"

    @property
    def first(self) -> tuple[str, ...]:
        """What has to be known before the figures are read."""
        return (*((aged_words(self.aged),) if self.aged else ()),
                *((unseen_words(self.unseen),) if self.unseen else ()))  # fmt: skip

    @property
    def share(self) -> float | None:
        """The P&L as a decimal share of the gross value, so that a gain is positive; None of a book worth nothing."""
        whole = self.book_value if self.gross_value is None else self.gross_value
        return float(self.total / whole) if whole else None

    @property
    def of_what(self) -> str:
        """What the P&L is a share of."""
        return part_of_the_book(self.coverage, net=self.gross_value in (None, self.book_value))


class ReverseMove(Frozen):
    """A factor's move in a reverse answer; `at_bound` says that its bound holds it, `fixed` that the user set it."""

    factor: str
    move: float
    unit: MoveUnit
    sigma: float
    at_bound: bool
    fixed: bool


class ReverseAnswer(Frozen):
    """A shock that loses the target. `distance`: its Mahalanobis distance; `loss`: by full revaluation, positive.

    `price`: what one more unit of loss adds to half the squared distance (the dual of the loss). `without`: factors
    held still so that this answer differs from those before it.
    """

    moves: tuple[ReverseMove, ...]
    distance: float
    loss: Cents
    by_factor: dict[str, Cents]
    by_sector: dict[str, Cents] = {}
    by_position: dict[str, Cents] = {}
    method: Method
    price: float | None
    without: tuple[str, ...]
    explanation: str

    @property
    def total(self) -> Decimal:
        """The P&L: what a limit on the whole loss is held against."""
        return -self.loss


class ReverseResult(Frozen):
    """The most plausible ways to lose `target`, in `currency`, within `horizon` trading days, the nearest first.

    `given_loss`: what the given shocks lose alone, where that is the target or more: then there is nothing to seek, and
    the one answer is these shocks. VaR and ES are of the book as it is, one day.
    """

    as_of: dt.date
    currency: str = "USD"
    horizon: int
    book_value: Cents
    gross_value: Cents | None = None
    target: Cents
    answers: tuple[ReverseAnswer, ...]
    alignment: str
    notes: tuple[str, ...]
    aged: dt.date | None = None
    given_loss: Cents | None = None
    var_975_1d: ValueAtRisk | None = None
    es_975_1d: ExpectedShortfall | None = None
    exclusions: tuple[Exclusion, ...] = ()
    coverage: Coverage | None = None

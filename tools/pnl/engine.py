"""The P&L engine: a book and shocks in, P&L with its cuts, bands and plausibility out; every command asks it.

Two steps: `plan` settles the direct shocks, one per factor, which an agent or a person may still refuse; `stress`
revalues the book under them, with bands and tail risk, and `revalue` gives the cuts alone, many times a second.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial

import numpy as np

from finllm.errors import InputError
from finllm.tools.data.books.book import Book
from finllm.tools.data.books.position import Portfolio
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.currencies import factor_currency
from finllm.tools.data.factors import UserShock
from finllm.tools.data.fx import DOLLAR
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.ageing import Aged, aged, still
from finllm.tools.pnl.attribution import Attribution, attribute
from finllm.tools.pnl.bands import DRAWS, simulate, why_untested
from finllm.tools.pnl.betas import FURTHER
from finllm.tools.pnl.completion import Completion, Tails, complete, joint_distance, shock_rows
from finllm.tools.pnl.components import components
from finllm.tools.pnl.contract_rows import NO_TIME
from finllm.tools.pnl.coverage import Coverage, Thresholds, coverage_of
from finllm.tools.pnl.episodes import episode, nearest
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.history import History, history
from finllm.tools.pnl.idle_factors import idle_factors
from finllm.tools.pnl.joint import Joint
from finllm.tools.pnl.kernel import Sensitivities
from finllm.tools.pnl.left_open import at_horizons, beside, covered_share, draws_for, left_open, over_time
from finllm.tools.pnl.outcome import ENGINE, Analogue, EngineResult, usd
from finllm.tools.pnl.own_risk import OwnRisk, own_risk
from finllm.tools.pnl.propagate import Covariance
from finllm.tools.pnl.risk import BookDays, book_days, daily_gains, liquidity
from finllm.tools.pnl.sensitivity import book_sensitivities, currencies_of
from finllm.tools.pnl.shocks import JudgedShock, Plan, Window, plan_shocks
from finllm.tools.pnl.sizes import FactorView

BY_HORIZON = "by horizon: the same shocks at the same size in σ of each factor's own moves; rows nest and do not add"
NO_REASON = "the text gives no channel by which it would move, and no words that it does"
TAYLOR_LIMIT_BP = 300
"""Move of a yield beyond which duration and convexity no longer tell a bond's price, which is noted."""
GREEKS_LIMIT = 0.10
"""Return of the factor beyond which delta, gamma and vega no longer tell an option's price, which is noted."""


class Engine:
    """One book at one day, its sensitivities estimated once. Reads nothing past `as_of`.

    Equities load on the index by betas over two years, and on what oil, the dollar, rates and named factors do beyond
    it (see `regress`). Errors: InputError for a holding without history and beta.
    """

    def __init__(
        self,
        book: Book,
        market: MarketStore,
        as_of: dt.date,
        factors: FactorSet | None = None,
        *,
        thresholds: Thresholds | None = None,
        future: bool = False,
        age: bool = False,
        like: Engine | None = None,
    ) -> None:
        """`like`: an engine of the same market and day, perhaps of another book: what holds here too is not worked out
        again. `thresholds`: what makes a result complete; `future`: whether `as_of` had not come when it was asked for;
        `age`: whether time passes while the shocks come (see `aged`), which it does not by default."""
        self.book = book
        self.told, self.age = (thresholds, future), age
        known = (factors or FactorSet.default(market)).with_currencies(market, currencies_of(book))
        if like is not None and (like.view.market is not market or like.view.as_of != as_of):
            like = None
        self._like = like
        self.view = FactorView(known, market, as_of)
        self.sens = book_sensitivities(book, self.view.factors, market, as_of, like.sens if like else None)
        self._histories: dict[tuple[tuple[str, ...], tuple[str, ...]], History] = {}
        self._joints: dict[tuple[tuple[str, ...], int], Joint] = {}
        if like is not None and like.view.factors.within(known):
            self.view = like.view.of(known)
            self._histories, self._joints = like._histories, like._joints
        self._realised: dict[Window, tuple[dict[str, float], list[str]]] = {}
        self._aged: dict[int, Aged] = {}

    def serves(
        self, book: Book, market: MarketStore, as_of: dt.date, factors: FactorSet | None, *, age: bool
    ) -> bool:  # fmt: skip
        """Whether an engine made of these would be this one."""
        view = self.view
        if view.market is not market or view.as_of != as_of or self.age != age or self.book != book:
            return False
        return view.factors == (factors or FactorSet.default(market)).with_currencies(market, currencies_of(book))

    @cached_property
    def days(self) -> BookDays | None:
        """The days of the historical simulation, as the book meets them."""
        like, self._like = self._like, None  # engines made one of another are no chain
        known = like.days if like else None
        return book_days(self.book, self.arrays, self.view.factors, self.view.market, self.view.as_of, known=known)

    @cached_property
    def own(self) -> OwnRisk:
        """What the positions do beyond their loads."""
        return own_risk(self.book, self.arrays, self.sens.regressions, self.view)

    def _own_at(self, after: Aged) -> OwnRisk:
        """The same of a book that has aged, whose contracts answer otherwise to what they are on."""
        return self.own if after.until is None else \
            own_risk(self.book, after.arrays, self.sens.regressions, self.view)  # fmt: skip

    @cached_property
    def coverage(self) -> Coverage:
        """How much of the book every answer of this engine is about."""
        view = self.view
        return coverage_of(self.book, view.market, view.factors, self.told[0], future=self.told[1])

    @cached_property
    def idle(self) -> dict[str, str]:
        """Notes on the named factors that no position moves with, by their ids."""
        return idle_factors(self.arrays, self.view.factors, self.view.market, self.view.as_of)

    @property
    def arrays(self) -> Sensitivities:
        return self.sens.arrays

    def after(self, days: int) -> Aged:
        """The book after so many trading days: as it is, unless time passes."""
        if not self.age:
            return still(self.arrays)
        if days not in self._aged:
            self._aged[days] = aged(self.arrays, self.book, self.view.as_of, days)
        return self._aged[days]

    def plan(
        self,
        horizon: int,
        *,
        user: Sequence[UserShock] = (),
        replay: Window | str | None = None,
        judged: Sequence[JudgedShock] = (),
        passing: int | None = None,
    ) -> Plan:
        """The direct shocks over `horizon` trading days. `replay` is two dates or the id of an episode; `passing`: the
        days that pass where they are more than the horizon.

        Errors: see `plan_shocks`.
        """
        window = (episode(replay).start, episode(replay).end) if isinstance(replay, str) else replay
        return replace(plan_shocks(self.view, horizon, user=user, replay=window, judged=judged), passing=passing)

    def revalue(self, plan: Plan, *, propagate: bool | None = None, stressed: bool = False) -> Attribution:
        """The P&L in the book's currency and its cuts, the same as `stress` finds, without bands and tail risk."""
        moves = self.moves(plan, propagate=propagate, stressed=stressed)
        realised, _ = self._own_returns(plan.own_returns)
        return self._cuts(self.after(plan.passed), moves, realised)

    def _cuts(self, after: Aged, moves: Mapping[str, float], realised: Mapping[str, float]) -> Attribution:
        time = None if after.until is None else after.time
        return attribute(after.arrays, self.book.holdings, self._vector(moves), tuple(moves), realised, time)

    def moves(self, plan: Plan, *, propagate: bool | None = None, stressed: bool = False) -> dict[str, float]:
        """Where the plan takes every factor that it moves: those shocked, and the others as `propagate` says."""
        if propagate is False:
            return {name: one.move for name, one in plan.shocks.items()}
        held, joint = () if propagate else plan.still, self.joint(plan)
        return complete(self.view, plan.shocks, joint, on=True, draws=0, stressed=stressed, still=held).moves

    def stress(
        self, plan: Plan, *, propagate: bool | None = None, tails: Tails = "gaussian", level: float = 0.9,
        seed: int = 0, stressed: bool = False,
    ) -> EngineResult:  # fmt: skip
        """Revalue the book under the plan. In a replay holdings with a history take their own returns.

        With `propagate` the other factors that the book loads on move to their mean given the shocks (`tails`:
        Gaussian, or the median of a vine copula; `stressed`: by the covariance of stress at any size, see
        `Joint.near`); False holds them still. Unset they move, but for those of which a replayed window has no data,
        as what these did then is no guess. `interval` holds the P&L with probability `level`, given the shocks that
        a person or history gives: one that a text was read to mean sets the point alone. Errors: InputError for a level
        outside (0, 1), and unless they are held for shocks that cannot be told apart.
        """
        if not 0 < level < 1:
            raise InputError(f"an interval of level {level:g}", fix="give a level between 0 and 1, such as 0.9")
        book, view, known, after = self.book, self.view, self.view.factors, self.after(plan.passed)
        arrays, own = after.arrays, self._own_at(after)
        past, joint = self.history(plan), self.joint(plan)
        draws, on = draws_for(arrays, DRAWS), propagate is not False
        held = () if propagate else plan.still
        made = partial(complete, view, joint=joint, tails=tails, past=past, seed=seed, draws=draws, stressed=stressed)
        completion = made(plan.shocks, on=on, still=held)
        moves = self._vector(completion.moves)
        realised, said = self._own_returns(plan.own_returns)
        cuts = self._cuts(after, completion.moves, realised)
        plain = on and tails == "gaussian" and not stressed and not realised
        untested = why_untested(level, plan.days, covered_share(book, own), plain=plain, aged=self.age)
        unseen = () if propagate else plan.unseen
        market = completion if held == unseen and not plan.read else beside(plan, made, known.drivers, unseen, on=on)
        spread = left_open(view, arrays, plan, completion, market, joint, own, on=on, still=unseen, draws=draws,
                           seed=seed, untested=untested)  # fmt: skip
        interval = None if spread.empty else simulate(arrays, moves, spread, cuts.total, level=level, seed=seed)
        by_day = over_time(view, self.after, book, moves, spread, cuts.total, interval, realised, seed)
        gains = daily_gains(book, self.arrays, moves, known, view.market, view.as_of, realised=realised,
                            days_of_shock=plan.days, found=self.days, later=arrays)  # fmt: skip
        var, var_after, shortfall, shortfall_after = gains.measures() if gains else (None, None, None, None)
        given, far = completion.given, joint_distance(joint, completion.given)
        return EngineResult(
            engine=ENGINE, as_of=view.as_of, currency=book.currency, horizon=plan.horizon,
            book_value=usd(book.value), gross_value=usd(book.gross), total=cuts.total,
            by_position=cuts.by_position, by_factor=cuts.by_factor, by_sector=cuts.by_sector,
            by_direction=cuts.by_direction,
            by_horizon=at_horizons(by_day), by_day=by_day, interval=interval,
            var_975_1d=var, var_975_1d_after=var_after, es_975_1d=shortfall,
            es_975_1d_after=shortfall_after, liquidity=liquidity(self.arrays, known, past),
            shocks=shock_rows(known, plan.shocks, completion, joint.missing, far),
            mahalanobis=given.mahalanobis if given.shocked else None,
            analogue=self._analogue(plan, completion.covariance, propagate=propagate), alignment=joint.rule,
            exclusions=book.exclusions,
            notes=(*book.notes, *self._remarks(moves),
                   *(note for note in self.sens.notes if not (self.age and note == NO_TIME)), *after.notes,
                   *(note for id, note in self.idle.items() if id not in plan.shocks), *plan.notes, *said,
                   *completion.notes,
                   *_still(arrays, completion, joint.missing, plan.held),
                   *_limits_of_the_model(book, arrays, moves, realised),
                   *_window_note(plan), BY_HORIZON),
            coverage=self.coverage, replayed=plan.window, days=plan.days if plan.window else None,
            unseen=tuple(name for name in arrays.loaded() if name in held and name in plan.unseen), joint=far,
            aged=after.until,
        )  # fmt: skip

    def joint(self, plan: Plan) -> Joint:
        """How the factors that are shocked or that the book loads on move together over the plan's days."""
        moving = self._moving(plan)
        key = tuple(moving), plan.days
        if key not in self._joints:
            self._joints[key] = Joint(self.view, moving, plan.days)
        return self._joints[key]

    def history(self, plan: Plan) -> History:
        """Moves side by side of those factors; what stocks load on beyond the index cuts no window short."""
        names, moving = tuple(plan.shocks), self._moving(plan)
        spare = [name for name in moving if name not in plan.shocks and name in FURTHER]
        loaded = set(self.arrays.loaded())
        spare += [name for name in names if name not in loaded] if loaded & set(names) else []
        key = tuple(moving), tuple(spare)
        if key not in self._histories:
            wanted = [self.view.factors[name] for name in moving]
            self._histories[key] = history(wanted, self.view.market, self.view.as_of, optional=spare)
        return self._histories[key]

    def _moving(self, plan: Plan) -> list[str]:
        loaded = set(self.arrays.loaded())
        return [name for name in self.view.factors.drivers if name in plan.shocks or name in loaded]

    def _remarks(self, moves: np.ndarray) -> list[str]:
        """What is to be said of the user's series that the result stands on: positions' and moved factors'."""
        factors, ids = self.view.factors, self.arrays.factors
        used = [one.series or (one.id if one.price is not None else "") for one in self.book.holdings]
        used += [factors[name].series or "" for name, move in zip(ids, moves, strict=True) if move]
        if any(one.series for one in self.book.holdings):
            used.append(factors["EQUITY_US"].series or "")
        return self.view.market.remarks([name for name in used if name], self.view.as_of)

    def _vector(self, moves: Mapping[str, float]) -> np.ndarray:
        return np.array([moves.get(name, 0.0) for name in self.arrays.factors])

    def _own_returns(self, window: Window | None) -> tuple[dict[str, float], list[str]]:
        """What holdings with a history gained over the window at the rates of today; and which have none there."""
        if window is None:
            return {}, []
        if window not in self._realised:
            found: dict[str, float] = {}
            notes: list[str] = []
            for holding in self.book.holdings:
                if not holding.series or holding.gamma or holding.vega:
                    continue
                try:
                    prices = self.view.market.window(holding.series, *window, self.view.as_of)
                except InputError as error:
                    notes.append(f"{holding.id!r} is replayed by beta: {error.message}")
                    continue
                found[holding.id] = holding.market_value * float(prices.iloc[-1] / prices.iloc[0] - 1)
            self._realised[window] = found, notes
        return self._realised[window]

    def _analogue(self, plan: Plan, covariance: Covariance, *, propagate: bool | None) -> Analogue | None:
        sizes = {name: one.sigma for name, one in plan.shocks.items() if one.sigma is not None}
        found = nearest(sizes, covariance, self.view) if sizes else None
        if found is None:
            return None
        past = found.episode
        again = plan_shocks(self.view, plan.horizon, replay=(past.start, past.end))
        try:
            cuts = self.revalue(again, propagate=propagate)
        except InputError:  # two factors that are one moved in it: what they do to others cannot be told apart
            cuts = self.revalue(again, propagate=False)
        return Analogue(
            id=past.id, title=past.title, start=past.start, end=past.end, distance=found.distance, shared=found.shared,
            moves=found.moves, total=cuts.total, by_factor=cuts.by_factor,
        )  # fmt: skip


def run_engine(
    portfolio: Portfolio,
    market: MarketStore,
    as_of: dt.date,
    horizon: int,
    shocks: Sequence[UserShock],
    *,
    propagate: bool | None = None,
    replay: Window | str | None = None,
    seed: int = 0,
    level: float = 0.9,
    judged: Sequence[JudgedShock] = (),
    tails: Tails = "gaussian",
    factors: FactorSet | None = None,
    thresholds: Thresholds | None = None,
    future: bool = False,
    currency: str = DOLLAR,
    parts: bool = False,
    stressed: bool = False,
    age: bool = False,
    passing: int | None = None,
) -> EngineResult:
    """Value a portfolio in `currency` and stress it, in one go; `parts`: with the components of VaR and ES; `age`: time
    passes, over the horizon or `passing` trading days.

    Errors: those of `value_portfolio`, `plan_shocks` and `stress`.
    """
    book = value_portfolio(portfolio, market, as_of, currency)
    engine = Engine(book, market, as_of, factors, thresholds=thresholds, future=future, age=age)
    plan = engine.plan(horizon, user=shocks, replay=replay, judged=judged, passing=passing)
    result = engine.stress(plan, propagate=propagate, tails=tails, level=level, seed=seed, stressed=stressed)
    return (
        result.model_copy(update={"components": components(book, engine.arrays, engine.view, engine.days)})
        if parts
        else result
    )


def _still(
    arrays: Sensitivities, completion: Completion, missing: Mapping[str, str], held: Sequence[str]
) -> list[str]:  # fmt: skip
    """Factors that the book loads on and nothing moves, and why."""
    found: list[str] = []
    moved = {*completion.moves, *completion.others}
    for name in (one for one in arrays.loaded() if one not in moved):
        why = ""
        if name in missing:
            why = f", and none reaches it ({missing[name]})"
        elif "USD_BROAD" in completion.moves and factor_currency(name):
            why = ", and that of USD_BROAD reaches it only where shocks are completed"
        found.append(f"{name} is held still: {NO_REASON if name in held else 'no shock'}{why}")
    loaded = arrays.loaded()
    found += [f"{name} moves no position by itself" for name in completion.given.shocked if name not in loaded]
    return found


def _limits_of_the_model(
    book: Book, arrays: Sensitivities, moves: np.ndarray, realised: Mapping[str, float]
) -> list[str]:
    wide = arrays.wide(moves)
    gains, shifts = arrays.linear @ wide, arrays.direction @ wide
    if arrays.contracts:
        shifts[arrays.contracts.rows] = arrays.contracts.loads[0] @ wide
    found: list[str] = []
    for row, holding in enumerate(book.holdings):
        greeks = holding.asset_class != "volatility" and (
            holding.gamma or holding.vega or holding.asset_class == "option"
        )
        if holding.units is None and holding.asset_class == "bond" and abs(shifts[row]) * 1e4 > TAYLOR_LIMIT_BP:
            found.append(f"{holding.id!r}: duration and convexity are used beyond {TAYLOR_LIMIT_BP} bp of yield")
        elif holding.units is None and greeks and abs(shifts[row]) > GREEKS_LIMIT:
            found.append(f"{holding.id!r}: its delta, gamma and vega are an approximation beyond ±{GREEKS_LIMIT:.0%} of"
                         " its factor; give its strike and expiry")  # fmt: skip
        elif (arrays.floored[row] and not greeks and holding.id not in realised and holding.market_value
              and gains[row] / holding.market_value < -1):  # fmt: skip
            found.append(f"{holding.id!r}: beta times the shock is below -100 %; its price is floored at zero")
    return found


def _window_note(plan: Plan) -> list[str]:
    if plan.window is None or plan.days == plan.horizon:
        return []
    return [f"the replay spans {plan.days} trading days, and σ, Σ and bands are over these, not over {plan.horizon}"]

"""Shocks of a run: what the user wrote, a window replayed, a judged direction and size; one for each factor."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from finllm.errors import InputError, LookAheadError
from finllm.tools.data.factors import GIVEN, LONGEST_HORIZON, Direction, MoveUnit, Origin, Shock, Size, UserShock
from finllm.tools.data.market import span
from finllm.tools.evidence import show
from finllm.tools.pnl.factorset import Driver
from finllm.tools.pnl.history import days_between, one_step
from finllm.tools.pnl.sizes import MIN_MOVES, FactorView
from finllm.tools.pnl.sizes import Size as Known

Window = tuple[dt.date, dt.date]
QUANTILE: dict[Size, float] = {"small": 0.50, "medium": 0.80, "large": 0.95, "extreme": 0.99}
"""Size bucket → quantile of the moves of that sign, so `large` is a move that one in twenty such moves exceeds."""
BOUNDS: dict[MoveUnit, tuple[float, float]] = {
    "return": (-1.0, 100),
    "bp": (-10_000, 10_000),
    "points": (-1_000, 1_000),
}
"""The least and the greatest move a user may write, by unit: beyond it is a slip of the pen, or no price can fall."""
FLOOR = -0.95
"""The least return that scaling a reviewed size to a longer horizon, or completion, may reach."""
FAR = 5.0
"""σ beyond which a shock counts as extrapolated whatever its history shows."""


@dataclass(frozen=True)
class JudgedShock:
    """A direction and size that an agent judged of a factor, or a person (`by_hand`).

    `odds`: of each size, where the move is to be their mean rather than that of the likeliest size alone, so that a
    little more doubt moves it a little.
    """

    factor: str
    direction: Direction
    size: Size
    odds: Mapping[Size, float] | None = None
    by_hand: bool = False


@dataclass(frozen=True)
class Plan:
    """The direct shocks of a run by factor, one each, before any completion; what an agent sees and may refuse.

    `horizon` in trading days; `window` is the replayed one, `unseen` the factors without data in it and without a
    shock. `held`: factors that are not completed either, as the text gives no reason to move them. `notes` say which
    shocks gave way, and what has no history. `passing`: the trading days that pass where they are more than the horizon
    may be, at a late step of a path.
    """

    shocks: Mapping[str, Shock]
    horizon: int
    window: Window | None = None
    notes: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    passing: int | None = None
    held: tuple[str, ...] = ()

    @property
    def passed(self) -> int:
        """Trading days by which a book ages."""
        return self.passing or self.days

    @property
    def still(self) -> tuple[str, ...]:
        """The factors that stand still unless everything is to be completed."""
        return (*self.unseen, *(name for name in self.held if name not in self.shocks))

    @property
    def given(self) -> dict[str, Shock]:
        """The shocks that a person or history gives."""
        return {name: one for name, one in self.shocks.items() if one.origin in GIVEN}

    @property
    def read(self) -> dict[str, Shock]:
        """The shocks that a text was read to mean."""
        return {name: one for name, one in self.shocks.items() if one.origin not in GIVEN}

    @property
    def days(self) -> int:
        """Trading days that σ, covariance and bands are over: those of a replayed window, else the horizon."""
        return days_between(*self.window) if self.window else self.horizon

    def without(self, factors: Collection[str]) -> Plan:
        """The plan with the shocks of these factors left out."""
        return replace(self, shocks={name: one for name, one in self.shocks.items() if name not in factors})

    def with_shock(self, shock: Shock) -> Plan:
        """The plan with this shock in place of whatever its factor had."""
        return replace(self, shocks={**self.shocks, shock.factor: shock})

    @property
    def own_returns(self) -> Window | None:
        """The window in which holdings take their own returns: no shock but history's stands for the equity market."""
        equity = self.shocks.get("EQUITY_US")
        return self.window if equity is None or equity.origin == "historical" else None


def plan_shocks(
    view: FactorView,
    horizon: int,
    *,
    user: Sequence[UserShock] = (),
    replay: Window | None = None,
    judged: Sequence[JudgedShock] = (),
) -> Plan:
    """One shock per factor: a user's wins over history, history over what was judged.

    Errors: InputError for a horizon outside 1 to 250 days, an unknown factor, a move out of bounds, two different
    shocks of one factor and origin, or a judged size that neither history nor table has; LookAheadError for a replay
    that ends after `as_of`.
    """
    if not 1 <= horizon <= LONGEST_HORIZON:
        raise InputError(f"a horizon of {horizon} trading days", fix=f"give 1 to {LONGEST_HORIZON} days")
    plan = Plan({}, horizon, replay)
    found = [user_shock(one, view, plan.days) for one in user]
    notes: list[str] = []
    unseen: tuple[str, ...] = ()
    if replay:
        past, missing = replayed(view, replay)
        found += past
        unseen = tuple(factor for factor in missing if factor not in {one.factor for one in user})
        notes += [f"{factor} is not replayed: {missing[factor]}" for factor in unseen]
    used: dict[str, Shock] = {}
    for shock in found:
        _take(shock, used, notes)
    for one in judged:
        if one.factor in used and used[one.factor].origin in GIVEN:
            notes.append(f"{one.factor}: the {used[one.factor].origin} shock replaces the judged one")
        else:
            shock = judged_shock(one, view, plan.days)
            _take(shock.model_copy(update={"origin": "judgement"}) if one.by_hand else shock, used, notes)
    return replace(plan, shocks=used, notes=tuple(notes), unseen=unseen)


def _take(shock: Shock, used: dict[str, Shock], notes: list[str]) -> None:
    kept = used.setdefault(shock.factor, shock)
    if kept.origin != shock.origin:
        notes.append(f"{shock.factor}: the {kept.origin} shock replaces the {shock.origin} one")
    elif kept.move != shock.move:
        raise InputError(f"two {shock.origin} shocks of {shock.factor!r}: {kept.move:g} and {shock.move:g}",
                         fix="give one")  # fmt: skip


def user_shock(user: UserShock, view: FactorView, horizon: int) -> Shock:
    """A user's shock in the factor's own unit. Errors: InputError for a move out of bounds, or σ without a history."""
    driver = view.factors[user.factor]
    size = view.size(driver.id, horizon)
    if user.in_sigmas and size.sigma is None:
        raise InputError(f"{driver.id!r} has too little history by {view.as_of} to have a σ",
                         fix=f"write its shock in {driver.unit}")  # fmt: skip
    move = user.amount * size.sigma.value if user.in_sigmas and size.sigma else user.amount
    low, high = BOUNDS[driver.unit]
    if not low <= move <= high:  # NaN is refused here too
        raise InputError(f"the shock of {driver.id!r} is {show(move, driver.unit)}",
                         fix=f"stay between {show(low, driver.unit)} and {show(high, driver.unit)}")  # fmt: skip
    least, why = view.least_move(driver.id)
    if move < least - 1e-9:
        below = "zero" if not driver.floor else show(driver.floor, driver.unit)
        raise InputError(f"the shock of {driver.id!r}, {show(move, driver.unit)}, takes it below {below}: {why}",
                         fix=f"let it fall by at most {show(-least, driver.unit).lstrip('+')}, or give its history up "
                             f"to {view.as_of} if it stands higher")  # fmt: skip
    return _shock(driver, move, size, user.origin, _basis(size))


def judged_shock(judged: JudgedShock, view: FactorView, horizon: int) -> Shock:
    """The move that a judged direction and size stand for: a quantile of the factor's own moves of that sign.

    Where the factor has too little history, the reviewed table gives it, with origin `table`. Direction `none` is a
    move of zero. Where the judgement has `odds` of its sizes, it is the mean of their moves. Errors: InputError where
    neither history nor table has a size.
    """
    driver, size = view.factors[judged.factor], view.size(judged.factor, horizon)
    sign = {"up": 1, "down": -1, "none": 0}[judged.direction]
    odds = judged.odds or {judged.size: 1.0}
    said = f"{judged.size} {judged.direction}" + (f" ({_weighed(odds)})" if len(odds) > 1 else "")
    same = np.abs(size.moves[np.sign(size.moves) == sign]) if size.moves is not None and sign else np.zeros(0)
    if size.moves is not None and size.sigma and (sign == 0 or (len(same) >= MIN_MOVES and size.table is None)):
        far = sum(p * float(np.quantile(same, QUANTILE[one])) for one, p in odds.items()) if sign else 0.0
        move = max(sign * far, view.least_move(driver.id)[0])
        return _shock(driver, move, size, "model", f"{said}: {size.sigma.window}")
    if size.table is None:
        raise InputError(
            f"{driver.id!r} has too little history for a size, and the table of reviewed sizes has no row for it",
            fix="write its shock in its own unit, or add the row to tools/pnl/size_table.yaml",
        )
    move = sign * sum(p * size.table.sizes[one] for one, p in odds.items())
    if driver.unit == "return":
        move = max(move, FLOOR)
    move = max(move, view.least_move(driver.id)[0])
    sigma = move / (size.sigma.value if size.sigma else size.table.sigma)
    return Shock(factor=driver.id, move=move, unit=driver.unit, sigma=sigma, origin="table",
                 window=f"{said}: {size.table.words}", flags=_flags(move, sigma, size))  # fmt: skip


def _weighed(odds: Mapping[Size, float]) -> str:
    return "mean of " + ", ".join(f"{one} {p:.0%}" for one, p in odds.items() if p >= 0.005)


def replayed(view: FactorView, window: Window) -> tuple[list[Shock], dict[str, str]]:
    """Each factor's realised move from the close of the start to that of the end, and why the others have none.

    σ is of moves over as many trading days, known at `as_of`. Errors: LookAheadError if the end is after `as_of`;
    InputError if it does not come after the start.
    """
    start, end = window
    if end > view.as_of:
        raise LookAheadError(f"the replay {start} to {end} reaches past as_of {view.as_of}",
                             fix=f"set 'as_of' to {end} or later, or replay an earlier window")  # fmt: skip
    if end <= start:
        raise InputError(f"the replay {start} to {end} does not end after it starts", fix="swap or correct the days")
    found: list[Shock] = []
    missing: dict[str, str] = {}
    for id, driver in view.factors.drivers.items():
        if driver.series is None:
            missing[id] = "it has no series"
            continue
        try:
            values = view.market.window(driver.series, start, end, view.as_of)
        except InputError as error:
            missing[id] = error.message
            continue
        scale = 100.0 if view.market.unit_of(driver.series) == "percent" else 1.0
        move = float(one_step(values.iloc[[0, -1]].to_numpy() * scale, driver.unit)[0])
        size = view.size(id, days_between(start, end))
        found.append(_shock(driver, move, size, "historical", f"{span(values.index)}; {_basis(size)}"))
    return found, missing


def _basis(size: Known) -> str:
    return f"σ: {size.sigma.window}" if size.sigma else "no σ: too little history, and no reviewed size"


def _shock(driver: Driver, move: float, size: Known, origin: Origin, window: str) -> Shock:
    sigma = move / size.sigma.value if size.sigma and size.sigma.value > 0 else None
    return Shock(factor=driver.id, move=move, unit=driver.unit, sigma=sigma, origin=origin, window=window,
                 flags=_flags(move, sigma, size))  # fmt: skip


def _flags(move: float, sigma: float | None, size: Known) -> tuple[str, ...]:
    if not size.within(move):
        return ("extrapolated: beyond every move of its history over the horizon",)
    return (f"extrapolated: beyond {FAR:g} σ",) if sigma is not None and abs(sigma) > FAR else ()

"""How the loads would be chosen: window, shrinkage and form of each year by the years before it alone, and the gain."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import pandas as pd

from finllm.scenarios import PORTFOLIOS_DIR
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.market import INDEX, STOCKS, MarketStore, day_of
from finllm.tools.pnl.betas import FURTHER_WINDOW, regress
from finllm.tools.pnl.damping import damped
from finllm.tools.pnl.factorset import FactorSet

MARKET = MarketStore()
LATEST = dt.date(2022, 12, 28)
BOOK = load_portfolio(PORTFOLIOS_DIR / "default.csv")
SECTORS = {one.id: one.sector for one in BOOK.positions if one.sector and one.id in STOCKS}
FACTORS = FactorSet.default(MARKET)
FIRST_YEAR, SPLIT = 1992, 2005
"""The first year of loads, and the last whose windows a choice made once may look at."""
RENEWED, DAYS = 60, 20
"""Trading days after which loads are estimated anew, and those of a window."""
MOST = 0.15
"""Return of oil beyond which a window counts as one of its large moves."""
WINDOWS = (504, FURTHER_WINDOW, 2520)
"""Daily returns behind the load on oil; the index's are 504."""
SHRINKAGE = ("sector", "all names", "none")
FORMS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": lambda move: move, "by its logarithm": damped, "stopped at ±25 %": lambda move: np.clip(move, -0.25, 0.25)
}  # fmt: skip
CHOSEN = (FURTHER_WINDOW, "sector", "by its logarithm")
"""What the engine does."""

Choice = tuple[int, str, str]


@dataclass(frozen=True)
class Trial:
    """All `DAYS`-day windows from `FIRST_YEAR` on: years (n,) of their first and last day, `oil` (n,) its return.

    `errors`: squared errors (n, stocks) by choice, with loads known on the day before; `alone` those of the index.
    """

    year: np.ndarray
    ended: np.ndarray
    oil: np.ndarray
    errors: dict[Choice, np.ndarray]
    alone: np.ndarray

    def ratio(self, errors: np.ndarray, at: np.ndarray) -> float:
        """Squared error over that of the index alone, in the windows `at`."""
        return float(errors[at].sum() / self.alone[at].sum())

    def best(self, at: np.ndarray) -> Choice:
        """The choice with the smallest error in the windows `at`."""
        return min(self.errors, key=lambda choice: float(self.errors[choice][at].sum()))

    def nested(self) -> tuple[np.ndarray, dict[int, Choice]]:
        """Errors (n, stocks) of a choice made anew each year on the windows that had ended before it, and the choices
        by year; NaN in the first two years, which have nothing to choose on."""
        found, chosen = np.full_like(self.alone, np.nan), dict[int, Choice]()
        for year in range(FIRST_YEAR + 2, int(self.year.max()) + 1):
            chosen[year] = self.best(self.ended < year)
            found[self.year == year] = self.errors[chosen[year]][self.year == year]
        return found, chosen


@cache
def trial() -> Trial:
    """The windows and the errors of every choice. Takes a minute or more.

    One fit serves all forms: over a day they differ by a hundredth of the load at most.
    """
    names = [*STOCKS, INDEX, "WTI"]
    levels = pd.DataFrame({name: MARKET.read(name, LATEST).values for name in names}).dropna()
    days = [day_of(day) for day in levels.index]
    first = next(at for at, day in enumerate(days) if day.year >= FIRST_YEAR)
    values, drivers = levels.to_numpy(), [FACTORS["EQUITY_US"], FACTORS["OIL_WTI"]]
    starts = np.arange(first, len(days) - DAYS)
    moves = values[starts + DAYS] / values[starts] - 1
    errors = {choice: np.zeros((len(starts), len(STOCKS))) for choice in product(WINDOWS, SHRINKAGE, FORMS)}
    alone = np.zeros((len(starts), len(STOCKS)))
    for begin in range(0, len(starts), RENEWED):
        block, day = slice(begin, begin + RENEWED), days[starts[begin]]
        real, index, oil = moves[block, :-2], moves[block, -2:-1], moves[block, -1:]
        simple = regress(STOCKS, drivers[:1], MARKET, day)
        alone[block] = (index * [simple[name].betas["EQUITY_US"] for name in STOCKS] - real) ** 2
        for window, towards in product(WINDOWS, SHRINKAGE):
            shrinkage = "none" if towards == "none" else "vasicek"
            own = regress(STOCKS, drivers, MARKET, day, further_window=window, shrinkage=shrinkage,
                          sectors=SECTORS if towards == "sector" else None)  # fmt: skip
            beta, load = (
                np.array([own[name].betas.get(id, 0.0) for name in STOCKS]) for id in ("EQUITY_US", "OIL_WTI")
            )
            for form, felt in FORMS.items():
                errors[window, towards, form][block] = (index * beta + felt(oil) * load - real) ** 2
    years = np.array([[days[at].year, days[at + DAYS].year] for at in starts])
    return Trial(years[:, 0], years[:, 1], moves[:, -1], errors, alone)


def choices() -> list[tuple[str, str]]:
    """What the trial shows, as rows: in words, and the figure."""
    found = trial()
    errors, chosen = found.nested()
    judged, before, after = found.year >= FIRST_YEAR + 2, found.ended <= SPLIT, found.year > SPLIT
    once, engine = found.best(before), found.errors[CHOSEN]
    far = np.abs(found.oil) > MOST
    last, distinct = words(chosen[max(chosen)]), len(set(chosen.values()))
    rows = [
        (f"chosen anew each year on the windows that had ended before it, {min(chosen)} to {max(chosen)}"
         f" ({distinct} different choices, the last {last})", f"{found.ratio(errors, judged):.4f}"),
        (f"what the engine does ({words(CHOSEN)}), the same windows", f"{found.ratio(engine, judged):.4f}"),
        (f"chosen once on the windows to {SPLIT} ({words(once)}), windows after {SPLIT}",
         f"{found.ratio(found.errors[once], after):.4f}"),
        (f"what the engine does, windows after {SPLIT}", f"{found.ratio(engine, after):.4f}"),
    ]  # fmt: skip
    for form in FORMS:
        own = found.errors[CHOSEN[0], CHOSEN[1], form]
        figures = [f"{found.ratio(own, at):.4f}" for at in (before, after, after & far)]
        rows.append((f"oil's move {form}: windows to {SPLIT} / after / after, with oil beyond ±{MOST:.0%}",
                     " / ".join(figures)))  # fmt: skip
    return rows


def words(choice: Choice) -> str:
    window, towards, form = choice
    return f"{window} days, {'not shrunk' if towards == 'none' else f'shrunk to the {towards}'}, {form}"


if __name__ == "__main__":
    for what, figure in choices():
        print(f"{figure}  {what}")

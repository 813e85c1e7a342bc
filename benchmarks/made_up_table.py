"""Made-up evidence tables of the shape that a run leaves: random values, and which row plays which role."""

from __future__ import annotations

import datetime as dt
import random

from finllm.tools.data.factors import FACTORS, FactorId
from finllm.tools.evidence import EvidenceTable, Unit

SECTORS = ("Information Technology", "Financials", "Consumer Staples", "Health Care", "Energy", "Industrials")
TICKERS = ("AAPL", "AMD", "BAC", "CVX", "JPM", "MSFT", "XOM", "WMT", "PFE", "UNH")


def made_up_table(draw: random.Random) -> tuple[EvidenceTable, dict[str, str]]:
    """A table with random values, and the id of the row in each role."""
    made = _Table(draw)
    made.add_markets()
    made.add_results()
    made.add_bounds()
    return made.table, made.roles


class _Table:
    """A table in the making. The order in which values are drawn decides what a seed gives."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.table = EvidenceTable()
        self.roles: dict[str, str] = {}
        self.day = dt.date(2022, 6, 30) - dt.timedelta(days=draw.randrange(0, 9000))
        self.steps = draw.choice((5, 10, 20, 21, 60))
        self.period = f"{self.steps} trading days"
        self.history = f"{self.day.year - 20}-01-02 to {self.day}"
        self.names: list[FactorId] = draw.sample([one for one in FACTORS if one != "RATE_US_10Y"], 3)
        self.value = self.total = 0.0

    def add_markets(self) -> None:
        """Shocks, and what the markets did before."""
        draw, history = self.draw, self.history
        first = FACTORS[self.names[0]]
        sizes = {"return": (0.01, 0.6), "bp": (5, 300), "points": (1, 40)}
        moves = {unit: draw.choice((-1, 1)) * draw.uniform(*size) for unit, size in sizes.items()}
        move = moves[first.unit]
        self.add(move, first.unit, first.label, "shock (model)", history, "quantile of the factor's own moves", "shock")
        sigmas = (0.01, 0.2) if first.unit == "return" else (abs(move) / 6, abs(move) / 0.5)
        sigma = move / draw.uniform(*sigmas)
        self.add(sigma, "sigma", first.label, "size of the shock", history, "its own moves", "sigma")
        rate = draw.choice((-1, 1)) * float(draw.randrange(10, 300))
        self.add(rate, "bp", FACTORS["RATE_US_10Y"].label, "shock (user)", "stated", "given by the user", "rate")
        change = draw.gauss(0, 0.08)
        self.add(change, "return", first.label, "change over the last 20 days", f"to {self.day}", "last / first − 1",
                 "change")  # fmt: skip
        self.add(draw.uniform(0.05, 0.6), "return", FACTORS["EQUITY_US"].label, "realised volatility, annualised",
                 "last 20 days", "std of log returns × √252", "vol")  # fmt: skip
        ahead = f"{self.steps} steps from {self.day}"
        self.add(draw.gauss(0, 0.08), "return", first.label, "forecast", ahead, "theta", "forecast")

    def add_results(self) -> None:
        """The book's value and its P&L: by position, in all, by factor and by sector."""
        draw, roles = self.draw, self.roles
        self.value = value = round(draw.uniform(2e5, 4e9), 2)
        self.add(value, "usd", "book", "market value", self.period, "sum of market values", "value")
        held = draw.sample(TICKERS, 4)
        gains = [self.pnl(30) for _ in held]
        positions = [self.add(gain, "usd", name, "P&L", self.period, f"exposure × ({roles['shock']})")
                     for name, gain in zip(held, gains, strict=True)]  # fmt: skip
        roles["position"] = positions[0]
        self.total = total = round(sum(gains), 2) or 1.0
        self.add(total, "usd", "book", "P&L", self.period, f"sum({', '.join(positions)})", "total")
        self.add(total / value, "return", "book", "P&L over market value", self.period,
                 f"{roles['total']} / {roles['value']}", "share")  # fmt: skip
        by_factor, by_sector = (self.pnl(25), self.pnl(40)), self.pnl(25)
        part = f"part of {roles['total']}"
        rest = round(total - sum(by_factor), 2)
        for name, gain, role in zip(self.names, (*by_factor, rest), ("factor", "other", None), strict=True):
            self.add(gain, "usd", name, "P&L by factor", self.period, part, role)
        sectors = draw.sample(SECTORS, 2)
        self.add(by_sector, "usd", sectors[0], "P&L by sector", self.period, part, "sector")
        self.add(round(total - by_sector, 2), "usd", sectors[1], "P&L by sector", self.period, part)

    def add_bounds(self) -> None:
        """How wide the result is, what it is compared with, and which limits it is held to."""
        draw, period = self.draw, self.period
        self.add(float(self.steps), "days", "scenario", "horizon", period, "given by the scenario", "horizon")
        low, high = self.total - abs(self.pnl(20)), self.total + abs(self.pnl(20))
        self.add(low, "usd", "book", "interval, lower end", period, "simulated", "low")
        self.add(high, "usd", "book", "interval, upper end", period, "simulated", "high")
        level = draw.choice((0.8, 0.9, 0.95))
        self.add(level, "probability", "book", "level of the interval", period, "stated", "level")
        self.add(abs(self.pnl(60)), "usd", "book", "one-day value at risk, before the event", period,
                 f"historical simulation, {self.history}", "var")  # fmt: skip
        start = self.day - dt.timedelta(days=draw.randrange(1000, 5000))
        repeated = self.pnl(12)
        then = f"{start} to {start + dt.timedelta(days=draw.randrange(20, 90))}"
        self.add(repeated, "usd", "book", "P&L were the past event to repeat", then, "replay", "analogue")
        self.add(float(draw.randrange(1, 90) * 10_000), "usd", self.names[0], "limit, loss_by_factor", "this run",
                 "given by the limits file", "limit")  # fmt: skip
        self.add(float(draw.randrange(1, 9)), "count", "source wire-1", "publishers with nearly the same text",
                 "this event", "provenance check", "count")  # fmt: skip

    def add(
        self, value: float, unit: Unit, entity: str, what: str, when: str, formula: str, role: str | None = None
    ) -> str:
        """Add a row, in a role if one is given; its id."""
        id = self.table.add(value, unit, entity=entity, what=what, period=when, as_of=self.day, formula=formula)
        if role is not None:
            self.roles[role] = id
        return id

    def pnl(self, part: float) -> float:
        """A gain or loss about as large as the book's value over `part`, never nothing."""
        return round(self.draw.gauss(0, self.value / part), 2) or 1.0

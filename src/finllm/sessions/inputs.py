"""What a question about a book starts from: the book, its limits, the prices, the factors, and the last day known."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from finllm.errors import InputError
from finllm.scenarios import PORTFOLIOS_DIR
from finllm.settings import Settings, load_settings

if TYPE_CHECKING:
    from finllm.tools.data.books.position import Portfolio
    from finllm.tools.data.factors import UserShock
    from finllm.tools.data.limits import Limits
    from finllm.tools.data.market import MarketStore
    from finllm.tools.pnl.coverage import Thresholds
    from finllm.tools.pnl.engine import Engine
    from finllm.tools.pnl.factorset import FactorSet


@dataclass(frozen=True)
class Inputs:
    """A portfolio, the prices, the factors that shocks may name, and the day of which nothing later is read.

    `thresholds`: what makes an answer complete, None for the defaults; `future`: whether that day has not come yet.
    `currency`: that of the results. `at_hand`: an engine on this market and day, to be used again.
    """

    portfolio: Portfolio
    market: MarketStore
    factors: FactorSet
    as_of: dt.date
    thresholds: Thresholds | None = None
    future: bool = False
    currency: str = "USD"
    at_hand: Engine | None = None

    def shocked_by(self, texts: Sequence[str]) -> Inputs:
        """The inputs with every series and sector that a FACTOR=MOVE of `texts` names as a factor."""
        from finllm.tools.pnl.asked import sectors_of

        names = [text.partition("=")[0].strip() for text in texts]
        known = self.factors.with_shocked(self.market, names, sectors_of(self.portfolio), self.as_of)
        return replace(self, factors=known)


@dataclass(frozen=True)
class FoundLimits:
    """The limits that hold for a book, the file that they come from, and what the user should know about it."""

    limits: Limits
    file: Path | None
    notes: tuple[str, ...]


def thresholds_of(settings: Settings) -> Thresholds:
    """What the settings say of when a result counts as being about the whole book."""
    from finllm.tools.pnl.coverage import Thresholds

    return Thresholds(
        least=settings.coverage_least, stand_ins=settings.coverage_stand_ins, history_days=settings.coverage_history,
        age_days=settings.coverage_age, block=settings.coverage_block,
    )  # fmt: skip


def is_future(as_of: dt.date) -> bool:
    """Whether the day has not come yet where this runs."""
    return as_of > dt.datetime.now().astimezone().date()


def read_inputs(
    portfolio: Path | None = None, prices: Sequence[Path] = (), as_of: dt.date | None = None,
    factors: Sequence[str] = (), currency: str | None = None,
) -> Inputs:  # fmt: skip
    """Read and check a book (else the shipped one) and what moves it. `factors`: series of `prices` to add as factors.

    Errors: InputError naming what is wrong and the mend.
    """
    from finllm.tools.data.books.load import load_portfolio
    from finllm.tools.pnl.asked import sectors_of
    from finllm.tools.pnl.factorset import FactorSet

    held = load_portfolio(portfolio or PORTFOLIOS_DIR / "default.csv")
    market = open_market(prices)
    day = as_of or last_day(market)
    known = FactorSet.of(market, factors, (), sectors_of(held), day)
    return Inputs(held, market, known, day, thresholds_of(load_settings().settings),
                  is_future(day), wanted_currency(currency))  # fmt: skip


def wanted_currency(asked: str | None) -> str:
    """The currency of results: the one asked for, else that of the settings. Case does not count."""
    return (asked or load_settings().settings.currency).strip().upper()


def open_market(prices: Sequence[Path]) -> MarketStore:
    """The packaged series, those imported with 'finllm data import', and the user's."""
    from finllm.tools.data import sources

    return sources.open_market(load_settings().settings.data_dir, prices)


def fed_folder(settings: Settings) -> Path:
    """Where the Federal Reserve's imported variables are."""
    from finllm.tools.data.sources import FED

    return settings.data_dir / FED


def last_day(market: MarketStore) -> dt.date:
    """The last day of the equity data that is not in the future."""
    from finllm.tools.data.market import INDEX

    return market.read(INDEX, dt.datetime.now(dt.UTC).date()).last


def find_limits(
    limits: Path | None, portfolio: Path | None, factors: Sequence[str] | None = None, currency: str = "USD"
) -> FoundLimits:
    """The limits asked for; else those beside the portfolio; else none, said so.

    `factors`: the names that a limit by factor may have, those of `limitable`. Errors: InputError for a file that is
    damaged, or in another currency than the results, `currency`.
    """
    found = _find_limits(limits, portfolio, factors)
    said = found.limits.currency
    if said is not None and said != currency:
        raise InputError(f"the limits of {str(found.file)!r} are in {said}, and the results in {currency}",
                         fix=f"give --currency {said}, or limits in {currency}")  # fmt: skip
    return found


def _find_limits(limits: Path | None, portfolio: Path | None, factors: Sequence[str] | None) -> FoundLimits:
    from finllm.tools.data.limits import Limits, load_limits

    if limits is not None:
        return FoundLimits(load_limits(limits, factors), limits, ())
    beside = (portfolio.parent if portfolio else PORTFOLIOS_DIR) / "limits.yaml"
    if beside.is_file():
        notes = (f"limits are those of {str(beside)!r}",) if portfolio else ()
        return FoundLimits(load_limits(beside, factors), beside, notes)
    said = f"no limits: there is no {str(beside)!r} and no --limits; nothing can be breached"
    return FoundLimits(Limits(version="none"), None, (said,))


def limitable(factors: FactorSet, market: MarketStore) -> tuple[str, ...]:
    """Names that a limit by factor may have: the run's factors, those of the table, and every series."""
    from finllm.tools.data.factors import factor_table

    return tuple(dict.fromkeys([*factors.drivers, *factor_table(), *market.names()]))


def parse_shocks(texts: Sequence[str], factors: FactorSet) -> tuple[UserShock, ...]:
    """Shocks written as FACTOR=MOVE. Errors: InputError for one that cannot be read, or two of one factor."""
    found: dict[str, UserShock] = {}
    for text in texts:
        name, sign, move = text.partition("=")
        if not sign or not name.strip() or not move.strip():
            raise InputError(f"shock {text!r} is not FACTOR=MOVE", fix="write it as OIL_WTI=+40% or EQUITY_US=-3sigma")
        shock = factors.parse(name.strip(), move.strip())
        if shock.factor in found:
            raise InputError(f"{shock.factor!r} is shocked twice", fix="give one move for each factor")
        found[shock.factor] = shock
    return tuple(found.values())

"""Bands of runs on dated episodes: reads each account with the real edge model once, then scores as often as wanted.

`python -m benchmarks.run_bands read` asks the model for every account that `readings.json` lacks, and writes it after
each, so that it can be stopped and resumed; without `read` no model is asked: bands are made from the readings kept.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sys
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks.bands import BOOK, LATEST, LEVEL, MARKET
from benchmarks.episodes.accounts import ACCOUNTS, Account, accounts
from benchmarks.episodes.dates import HORIZON
from finllm.tools.data.books.book import Book
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.market import INDEX, day_of
from finllm.tools.data.yaml_files import read_yaml
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.episodes import EPISODES
from finllm.tools.pnl.outcome import Interval
from finllm.tools.pnl.shocks import JudgedShock

READINGS = ACCOUNTS.with_name("readings.json")
WINDOWS = ACCOUNTS.with_name("windows.yaml")
Kept = dict[str, Any]


@dataclass(frozen=True)
class Scored:
    """A run's band from its account alone, and what the shares of the book then did, USD."""

    account: Account
    band: Interval
    point: float
    truth: float
    value: float

    @property
    def held(self) -> bool:
        return float(self.band.lower) <= self.truth <= float(self.band.upper)


def windows() -> tuple[Account, ...]:
    """The accounts of the eight windows, each as of the close before it."""
    from benchmarks.episodes.accounts import _Accounts  # pyright: ignore[reportPrivateUsage]

    return read_yaml(WINDOWS, _Accounts, "list of episodes", needs="as episodes.yaml", example=str(ACCOUNTS)).episodes


def key_of(one: Account) -> str:
    return f"{one.as_of} {one.rule}"


def kept() -> dict[str, Kept]:
    """The readings kept: by account, the probabilities of each factor's directions and sizes, and what was chosen."""
    return json.loads(READINGS.read_text(encoding="utf-8")) if READINGS.exists() else {}


def read_all() -> None:
    """Ask the edge model for what is not kept yet."""
    from finllm.desk.desk import open_desk
    from finllm.events import EventBus
    from finllm.graphs.event_reading import read_event
    from finllm.settings import load_settings

    found = kept()
    with open_desk(load_settings().settings, EventBus()) as desk:
        for one in (*accounts(), *windows()):
            if key_of(one) in found:
                continue
            opinion = asyncio.run(read_event(one.account, desk)).opinion
            judged = opinion.judgement
            found[key_of(one)] = {
                "model": f"{opinion.backend} at {opinion.precision}, prompt {opinion.prompt_version}",
                "factors": {} if judged is None else {
                    factor: {
                        "direction": _rounded(opinion.choices[f"factors.{factor}.direction"]),
                        "size": _rounded(opinion.choices.get(f"factors.{factor}.size", {})),
                        "read": [call.direction, call.size],
                    } for factor, call in judged.factors.items()
                },
            }  # fmt: skip
            READINGS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            print(key_of(one), flush=True)


def _rounded(probabilities: dict[str, float]) -> dict[str, float]:
    return {value: round(one, 4) for value, one in sorted(probabilities.items())}


def heeded() -> tuple[int, int]:
    """Of the episodes whose index was read to move: in how many it went that way, and how many they are."""
    found, index = kept(), MARKET.read(INDEX, LATEST).values
    right = told = 0
    for one in accounts():
        call = found.get(key_of(one), {"factors": {}})["factors"].get("EQUITY_US")
        at = int(index.index.searchsorted(pd.Timestamp(one.as_of), side="right")) - 1
        end = min(at + HORIZON, len(index) - 1)
        if call is None or call["read"][0] == "none":
            continue
        told += 1
        right += (call["read"][0] == "up") == bool(index.iloc[end] > index.iloc[at])
    return right, told


def share_heeded() -> float:
    """How often the market does as it is read beyond chance, a coin's two throws added (Laplace)."""
    right, told = heeded()
    return max(0.0, 2 * (right + 1) / (told + 2) - 1)


def scored(one: Account, reading: Kept, days: int = HORIZON) -> Scored:
    """The band that a run of the account makes around what it read, and what happened over the days after."""
    whole = value_portfolio(BOOK, MARKET, one.as_of)
    book = whole.model_copy(update={"holdings": tuple(h for h in whole.holdings if h.asset_class == "equity")})
    engine = Engine(book, MARKET, one.as_of)
    judged = [JudgedShock(factor, *call["read"]) for factor, call in reading["factors"].items()
              if call["read"][1] != "none"]  # fmt: skip
    found = engine.stress(engine.plan(days, judged=judged), level=LEVEL)
    assert found.interval is not None
    return Scored(one, found.interval, float(found.total), gained(book, one.as_of, days), book.value)


def gained(book: Book, as_of: dt.date, days: int) -> float:
    """What the book's shares gained over the trading days after `as_of`, USD."""
    index = MARKET.read(INDEX, LATEST).values
    at = int(index.index.searchsorted(pd.Timestamp(as_of), side="right")) - 1
    start, end = index.index[at], index.index[min(at + days, len(index) - 1)]
    gains = 0.0
    for one in book.holdings:
        prices = MARKET.read(one.series or one.id, LATEST).values
        gains += one.market_value * float(prices[end] / prices[start] - 1)
    return gains


def episodes() -> list[Scored]:
    """The dated episodes whose readings are kept."""
    found = kept()
    return [scored(one, found[key_of(one)]) for one in accounts() if key_of(one) in found]


def known_windows() -> list[Scored]:
    """The eight windows, over the trading days of each."""
    found, index = kept(), MARKET.read(INDEX, LATEST).values.index
    done: list[Scored] = []
    for one in windows():
        window = EPISODES[one.rule.removeprefix("window ")]
        days = int((index <= pd.Timestamp(window.end)).sum() - (index <= pd.Timestamp(one.as_of)).sum())
        assert day_of(index[index.searchsorted(pd.Timestamp(one.as_of), side="right")]) == window.start
        if key_of(one) in found:
            done.append(scored(one, found[key_of(one)], days))
    return done


if __name__ == "__main__":
    if sys.argv[1:] == ["read"]:
        read_all()
    for name, done in (("episodes", episodes()), ("windows", known_windows())):
        print(name, sum(one.held for one in done), "of", len(done))
        for one in done:
            print(key_of(one.account), one.held, f"{one.truth / one.value:+.1%}", f"{one.point / one.value:+.1%}",
                  f"{float(one.band.lower) / one.value:+.1%} to {float(one.band.upper) / one.value:+.1%}")  # fmt: skip

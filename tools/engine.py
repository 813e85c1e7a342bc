"""The stress engine's face: a portfolio and shocks in, P&L with its cuts, bands and plausibility out; no model."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Literal

from finllm.tools.factors import Shock, UserShock
from finllm.tools.market import MarketStore
from finllm.tools.outcome import EngineResult, ReverseResult
from finllm.tools.portfolio import Portfolio

Tails = Literal["gaussian", "vine"]


def run_engine(
    portfolio: Portfolio,
    market: MarketStore,
    as_of: dt.date,
    horizon: int,
    shocks: Sequence[UserShock],
    *,
    propagate: bool = False,
    replay: tuple[dt.date, dt.date] | str | None = None,
    seed: int = 0,
    level: float = 0.9,
    model: Sequence[Shock] = (),
    tails: Tails = "gaussian",
) -> EngineResult:
    """Stress a portfolio: user, replayed, named and model-derived shocks, freely combined."""
    raise NotImplementedError


def reverse(
    portfolio: Portfolio,
    market: MarketStore,
    as_of: dt.date,
    horizon: int,
    loss: float,
    *,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    fixed: Sequence[UserShock] = (),
    answers: int = 3,
    seed: int = 0,
) -> ReverseResult:
    """The smallest shocks by Mahalanobis distance that lose `loss`: a share of the net value below 1, else USD."""
    raise NotImplementedError


__all__ = ["EngineResult", "ReverseResult", "Tails", "reverse", "run_engine"]

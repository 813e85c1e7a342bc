"""market-signal: reads forecasts, volatility and regime, and says where the equity market stands."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from finllm.agents.agent import Agent


class MarketSignal(BaseModel):
    model_config = ConfigDict(extra="forbid")

    regime: Literal["calm", "uneasy", "stressed", "crisis"]
    direction: Literal["up", "down", "none"]
    because: tuple[str, ...]


class AskedHowSure(MarketSignal):
    """The judgement of runs up to engine 5, which asked the model for a confidence that nothing read."""

    confidence: Literal["low", "medium", "high"]


MARKET_SIGNAL = Agent("market-signal", MarketSignal, floor="pruned", value=1.0)

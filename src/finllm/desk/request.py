"""What a run was asked to do: everything that resuming or replaying it needs, as one JSON-able model."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from finllm.errors import InputError
from finllm.guardrails.approval import Approval, approver
from finllm.tools.data.books.position import Portfolio
from finllm.tools.data.fx import DOLLAR
from finllm.tools.data.limits import Limits
from finllm.tools.data.market import MarketStore
from finllm.tools.data.scenario import BudgetEntry, Scenario
from finllm.tools.data.sources import open_market
from finllm.tools.evidence import sha256_of
from finllm.tools.pnl.coverage import Thresholds

OnUnresolved = Literal["withhold", "ask"]
"""What happens where text and measurements stay at odds: `withhold` the shocks in dispute, or `ask` a person."""


class PriceFile(BaseModel):
    """A user's file, by path and by the digest it had when the run began."""

    model_config = ConfigDict(frozen=True)

    path: str
    sha256: str

    @classmethod
    def of(cls, path: Path) -> PriceFile:
        return cls(path=str(path.absolute()), sha256=_digest(path))

    def unchanged(self) -> Path:
        """The path. Errors: InputError if the file's content is not what the run began with."""
        path = Path(self.path)
        if _digest(path) != self.sha256:
            raise InputError(f"price file {self.path!r} has changed since the run began", fix="start a new run")
        return path


class RunRequest(BaseModel):
    """The inputs of a run. `scenario.as_of` is already the effective one.

    `files`: those that scenario, portfolio and limits were read from, which a replay compares with what is there.
    `floor`: coarsest precision that may answer any agent, where its own is coarser. `thresholds`: what makes the result
    complete, None for the defaults; `future`: whether `as_of` had not come when the run was asked for.
    `approval`: the review that `scenario.approved_by` led to then.
    """

    model_config = ConfigDict(frozen=True)

    scenario: Scenario
    portfolio: Portfolio
    limits: Limits
    prices: tuple[PriceFile, ...] = ()
    files: tuple[PriceFile, ...] = ()
    seed: int = 0
    on_unresolved: OnUnresolved = "withhold"
    floor: str | None = None
    thresholds: Thresholds | None = None
    future: bool = False
    approval: Approval | None = None

    @property
    def approved_by(self) -> str | None:
        """Who approved the scenario as it is, and where that is on record; None where nobody did."""
        return approver(self.scenario.model_dump(mode="json"), self.approval)

    @property
    def inputs(self) -> tuple[PriceFile, ...]:
        """Every file that the run was started from."""
        return (*self.files, *self.prices)

    def market(self, data: Path | None, only: Collection[str] | None = None) -> MarketStore:
        """The run's market data. `data`: the home's folder of imported data, None to do without; `only`: see there.

        Errors: InputError for a price file that is not what the run began with.
        """
        return open_market(data, [file.unchanged() for file in self.prices], only)

    @property
    def as_of(self) -> dt.date:
        return self.scenario.as_of

    @property
    def currency(self) -> str:
        """That of the book and of all results."""
        return self.scenario.currency or DOLLAR

    @property
    def budget(self) -> BudgetEntry:
        return self.scenario.budget or BudgetEntry(seconds=None, tokens=None, deep_tokens=None)


def _digest(path: Path) -> str:
    try:
        return sha256_of(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"cannot read price file {str(path)!r}: {error}", fix="give a readable CSV or Parquet file"
        ) from error

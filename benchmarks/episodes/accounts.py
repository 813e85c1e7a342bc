"""The accounts of the dated episodes, each as of its day, and the scenario that a run is given of one."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from benchmarks.episodes.dates import HORIZON
from finllm.tools.data.scenario import Scenario
from finllm.tools.data.yaml_files import read_yaml

ACCOUNTS = Path(__file__).resolve().parent / "episodes.yaml"


class Account(BaseModel):
    """What was publicly known at the close of `as_of`; `rule` is what chose the day."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    as_of: dt.date
    rule: str
    title: str
    account: str

    def scenario(self) -> Scenario:
        """The account as a run reads it: no source, no shock, the 20 trading days after `as_of`."""
        return Scenario(title=self.title, narrative=self.account, horizon=HORIZON, as_of=self.as_of)


class _Accounts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    episodes: tuple[Account, ...]


def accounts() -> tuple[Account, ...]:
    """All of them, in order of their days."""
    return read_yaml(ACCOUNTS, _Accounts, "list of episodes",
                     needs="'episodes' is a list of as_of, rule, title and account",
                     example="benchmarks/episodes/dates.py says which days").episodes  # fmt: skip

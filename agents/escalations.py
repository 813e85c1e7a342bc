"""Why an agent was asked again, or at a finer precision at once: a row of its opinion."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Escalation(BaseModel):
    """Why an agent was asked again, or at a finer precision at once: from which to which, and over what.

    `cause`: `threshold` (a calibrated probability of 0 to 1 under the card's), `beforehand` (the share that `before`
    has right on average is, and nothing was asked there), `checks` (the reading against words and precedents), `second
    opinion` or `validator` (whose verdict `field` is). `votes`: answers that were counted at `to`, 0 for a finer answer
    that stands; `split`: fields on which no majority agreed, with what was said.
    """

    model_config = ConfigDict(frozen=True)

    cause: Literal["threshold", "beforehand", "checks", "second opinion", "validator"]
    before: str | None
    to: str | None
    field: str | None = None
    probability: float | None = None
    threshold: float | None = None
    votes: int = 0
    split: dict[str, list[str]] = {}

    @property
    def words(self) -> str:
        """The escalation in one line: what was done, and why."""
        way = f"{self.votes} votes at {self.to}" if self.votes else f"escalated from {self.before} to {self.to}"
        if self.cause == "beforehand":
            way = f"asked at {self.to} at once"
        return f"{way}: {self.reason}"

    @property
    def reason(self) -> str:
        """Why, in words."""
        match self.cause:
            case "threshold":
                return f"{self.field} was {self.probability or 0.0:.0%} sure, its threshold is {self.threshold:.0%}"
            case "beforehand":
                told = f"{self.before} has {self.field} right in {self.probability:.0%}"
                return f"{told}, full depth in {self.threshold:.0%}"
            case "second opinion":
                return f"the second opinion is {self.probability or 0.0:.0%} sure of another {self.field}"
            case "checks":
                return f"words or precedents speak against {self.field}"
            case "validator":
                return f"the validator did not find text and measurements aligned ({self.field})"

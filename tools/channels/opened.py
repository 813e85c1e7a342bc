"""A channel that a text opens: how likely, in which direction in time, and the sentence it was read from."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

State = Literal["happens", "feared", "denied", "past"]
STATES: tuple[State, ...] = get_args(State)
"""`happens`: it is the case, or announced; `feared`: it may come; `denied`: it is refuted, averted or did not come;
`past`: it is told as history. Only the first two open a channel."""


class Opened(BaseModel):
    """A channel in a text. `probability`: that the text says it is open, so that it happens or is feared.

    `state` is the likeliest of `states`, whose probabilities sum to 1. `start` and `end`: where in the text the
    sentence lies that it was read from, in characters, as a slice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channel: str
    probability: float = Field(ge=0, le=1)
    state: State
    states: dict[State, float]
    start: int = Field(ge=0)
    end: int = Field(ge=0)

    @model_validator(mode="after")
    def _whole(self) -> Opened:
        if self.end < self.start:
            raise ValueError("'end' must not come before 'start'")
        if self.states and self.state != max(self.states, key=lambda one: self.states[one]):
            raise ValueError("'state' is the likeliest of 'states'")
        return self

    @property
    def happens(self) -> float:
        """That it happens, given that it is open; the rest is feared. An unknown state counts as happening."""
        happens, feared = self.states.get("happens", 0.0), self.states.get("feared", 0.0)
        return happens / (happens + feared) if happens + feared else 1.0

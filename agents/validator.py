"""validator: holds the reading of the text against the measurements and says whether they agree, and if not why."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict

from finllm.agents.agent import Agent
from finllm.scheduler.decoding.template import Unless


class Validation(BaseModel):
    """`cause`: `lagging` news, already `priced`, hidden liquidity `drain`, `single` one-off, bad `data`."""

    model_config = ConfigDict(extra="forbid")

    verdict: Literal["aligned", "diverged", "unresolved"]
    cause: Annotated[
        Literal["none", "lagging", "priced", "drain", "single", "data"], Unless("verdict", value="aligned", then="none")
    ]
    because: tuple[str, ...]


AS_READ, OTHERWISE = "factors that move as read", "factors that move otherwise"


def comparison(as_read: int, otherwise: int) -> tuple[str, str]:
    """The first two lines that the validator is offered: what a tool counted, so that it need not compare itself."""
    return f"{AS_READ}: {as_read}", f"{OTHERWISE}: {otherwise}"


VALIDATOR = Agent("validator", Validation, floor="pruned", value=3.0)

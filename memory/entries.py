"""What the ledger's entries say, typed, for whoever reads them back: calls, placements, charges, failures, answers."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict

from finllm.scheduler.decoding.filling import Choices
from finllm.scheduler.decoding.template import Template, template_from
from finllm.scheduler.placement.task import Prompt
from finllm.scheduler.record import Entry


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True)

    @classmethod
    def of(cls, entry: Entry) -> Self:
        """An entry's request and response as one row. Errors: ValidationError for one of another kind."""
        return cls.model_validate({**entry.request, **entry.response, "key": entry.key})


class RecordedCall(_Said):
    """What a model was asked and answered. `priors` is None for the call that asks for them; `choices` are by field.

    `votes`: how many sampled answers they are shares of, where the backend gave no log-probabilities.
    """

    key: str
    agent: str
    prompt: Prompt
    prompt_version: str
    template: list[dict[str, object]]
    priors: Choices | None
    seed: int
    weights_sha256: str
    precision: str
    text: str
    choices: Choices
    prompt_tokens: int
    output_tokens: int
    seconds: float
    votes: int | None = None

    @property
    def judges(self) -> bool:
        return self.priors is not None

    def steps(self) -> Template:
        return template_from(self.template)


class RecordedPlacement(_Said):
    """Where a task went. `asked`: digest of the question; `why`: what it was asked again for; `predicted`: s and J.

    `twin`: the backend that a critical task ran on too; `alone`: why it ran on none.
    """

    agent: str
    task: str | None = None
    asked: str | None = None
    why: str | None = None
    chosen: str
    refused: dict[str, str]
    rule: str
    predicted: dict[str, float | None] | None = None
    twin: str | None = None
    alone: str | None = None

    @property
    def refused_words(self) -> str:
        return "; ".join(f"{name} refused: {why}" for name, why in sorted(self.refused.items()))


class Charge(_Said):
    """A call that gave no answer, and why."""

    task: str | None = None
    why: str


class Failure(_Said):
    """A task that nobody answered. `short`: how much of a budget was spent, where it was that which stopped it."""

    message: str
    fix: str
    short: str | None = None


class PersonsAnswer(_Said):
    answer: str

"""What an agent said, in the words of a report: each value with its probability, and what it cites."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, JsonValue

from finllm.graphs.rows import OpinionRow

JUDGED_HEADER = ("agent", "about", "said", "because")


class JudgedRow(BaseModel):
    """An agent's judgement: `said` has each value with its probability, `because` the evidence ids that it cites.

    `about`: the source, where it is of one.
    """

    model_config = ConfigDict(frozen=True)

    agent: str
    about: str | None
    said: str
    because: tuple[str, ...]

    @classmethod
    def of(cls, opinion: OpinionRow) -> JudgedRow:
        cited = [found for field in opinion.choices if isinstance(found := opinion.cited(field), tuple)]
        because = dict.fromkeys(id for one in cited for id in one)
        return cls(agent=opinion.agent, about=opinion.about, said=", ".join(_values(opinion)), because=tuple(because))


def _values(opinion: OpinionRow) -> Iterator[str]:
    judged: JsonValue = {} if opinion.judgement is None else opinion.judgement.model_dump(mode="json")
    for field, odds in opinion.choices.items():
        value = judged
        for name in field.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, str) and odds:
            yield f"{_named(field)} {value} {odds.get(value, max(odds.values())):.0%}"


def _named(field: str) -> str:
    """A field as a person calls it: a factor or rule by its name alone."""
    parts = field.split(".")
    return parts[1] if len(parts) > 2 else field

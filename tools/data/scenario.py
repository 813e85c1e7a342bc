"""Scenarios: the YAML file's schema and its loader, whose errors name file, line and field."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from finllm.errors import InputError
from finllm.tools.data.budget_text import parse_budget_text
from finllm.tools.data.by_hand import (
    DisputeEntry,
    FactorName,
    Lineage,
    ReadEntry,
    Strict,
    Told,
    TradeEntry,
    without_defaults,
)
from finllm.tools.data.factors import FACTOR_IDS, LONGEST_HORIZON, MoveUnit, UserShock, check_move, parse_user_shock
from finllm.tools.data.yaml_files import read_yaml

Role = Literal["market-signal", "narrative", "sanity-checker", "validator", "stress-tester", "compliance"]
"""The agents, as `critical` names them."""
Text = Annotated[str, Field(min_length=1, max_length=20_000)]


class SourceText(Told):
    """One thing somebody published about the event. Its text is data, however it is worded.

    `use`: `muted`, it is weighed beside the others and shown, but neither the narrative agent nor the words read it;
    `off`, it is left out, and said to be.
    """

    id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    publisher: str = Field(min_length=1, max_length=200)
    published_at: dt.datetime
    url: str = Field(min_length=1, max_length=2000)
    text: Text
    use: Literal["on", "muted", "off"] = "on"

    @field_validator("published_at")
    @classmethod
    def _in_utc(cls, value: dt.datetime) -> dt.datetime:
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


class ShockEntry(Told):
    """A shock the user insists on: `{factor: OIL_WTI, move: +40%}`.

    `factor` is one that comes with finllm, one of the scenario's own `factors`, or any series of the prices that the
    run is given (`{factor: COPPER, move: -20%}`). Which of these there are is known once the market is open; until then
    only the move of a judged factor is checked against its unit. With `because` and `by` it is a human judgement.
    """

    factor: FactorName
    move: str

    @model_validator(mode="after")
    def _readable(self) -> ShockEntry:
        try:
            if self.factor in FACTOR_IDS:
                self.parsed()
            else:
                check_move(self.factor, self.move)
        except InputError as error:
            raise ValueError(str(error)) from error
        return self

    def parsed(self, units: Mapping[str, MoveUnit] | None = None) -> UserShock:
        """The move, read in the factor's unit; `units` are those of all known factors, else of the judged ones.

        Errors: InputError for an unknown factor or a move in another unit than its own.
        """
        return parse_user_shock(self.factor, self.move, units)

    @property
    def judged(self) -> bool:
        """Whether a person set it with name and reason."""
        return self.because is not None and self.by is not None


class Replay(Strict):
    """A historical window, close to close, whose realised moves are the shocks."""

    start: dt.date
    end: dt.date

    @model_validator(mode="after")
    def _ordered(self) -> Replay:
        if self.end <= self.start:
            raise ValueError("'end' must come after 'start'")
        return self


class BudgetEntry(Strict):
    """What a run may spend: wall-clock s, model tokens (prompt and output), those of the deep tier, J, gCO₂e, USD.

    In a file also as one line, `20s,500deep,2kJ`.
    """

    seconds: float | None = Field(None, gt=0, allow_inf_nan=False)
    tokens: int | None = Field(None, gt=0)
    deep_tokens: int | None = Field(None, ge=0)
    joules: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    grams: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        try:
            return parse_budget_text(value) if isinstance(value, str) else value
        except InputError as error:
            raise ValueError(str(error)) from error


class PathStep(Strict):
    """One step: how many trading days it takes, and the moves of its factors in their own units (not in σ)."""

    label: str | None = Field(None, min_length=1, max_length=60)
    days: int = Field(ge=1, le=LONGEST_HORIZON, strict=True)
    shocks: tuple[ShockEntry, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_once(self) -> PathStep:
        names = [one.factor for one in self.shocks]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"duplicate shock: {', '.join(repeated)}")
        return self


class PathTable(Strict):
    """Steps in their order. `moves`: each is of its `step` alone, to be compounded, or since the path's `start`."""

    moves: Literal["step", "start"] = "step"
    steps: tuple[PathStep, ...] = Field(min_length=1, max_length=60)

    @property
    def factors(self) -> tuple[str, ...]:
        """The factors that some step moves."""
        return tuple(dict.fromkeys(entry.factor for one in self.steps for entry in one.shocks))


class Scenario(Strict):
    """An event narrative, its sources, a horizon in trading days, and the shocks the user insists on.

    `factors` names series of the prices as factors of their own: they can be shocked and limited, a holding of that id
    loads on its own series, and completion moves them. A series that a shock names is one without being listed.
    `propagate`: factors without a shock move with those that have one, by their covariance; false holds them still.
    Unset they move, but for those of which a replayed window has no data. `age`: time passes over the horizon, so that
    contracts are revalued at its end. `currency`: that of every result; unset, the setting of that name. `path`:
    several steps in the place of `shocks`; the result is that at the step that is worst for the book. `channels`:
    by a factor of `factors` or series of the prices, its sign and relative size (-3 to 3) in each transmission channel
    that moves it, as the table of these has.

    `critical`: the agents whose calls run in two domains of power and network at once, where backends tell theirs;
    unset, compliance and the validation after which nothing is read again; an empty list, none.

    What a person decided in a session, with reasons: `readings` in the place of the agents', `disputes` settled,
    `trades` with which the book is stressed. `level`: the probability that the band holds. `lineage`: of a saved one.
    """

    title: str = Field(min_length=1, max_length=200)
    narrative: Text
    horizon: int = Field(ge=1, le=LONGEST_HORIZON, strict=True)
    as_of: dt.date
    approved_by: str | None = Field(None, min_length=1, max_length=200)
    sources: tuple[SourceText, ...] = Field((), max_length=32)
    shocks: tuple[ShockEntry, ...] = ()
    factors: tuple[FactorName, ...] = ()
    propagate: bool | None = None
    age: bool = False
    currency: str | None = Field(None, pattern=r"^[A-Z]{3}$")
    replay: Replay | None = None
    path: PathTable | None = None
    budget: BudgetEntry | None = None
    channels: dict[FactorName, dict[str, Annotated[int, Field(ge=-3, le=3, strict=True)]]] = Field({})
    critical: tuple[Role, ...] | None = None
    level: float | None = Field(None, gt=0, lt=1, allow_inf_nan=False)
    readings: tuple[ReadEntry, ...] = ()
    disputes: tuple[DisputeEntry, ...] = ()
    trades: tuple[TradeEntry, ...] = ()
    lineage: Lineage | None = None

    @property
    def insisted(self) -> frozenset[str]:
        """The factors that the user moves or reads, by a shock, along a path, or as a human judgement."""
        own = (*(one.factor for one in self.shocks), *(one.factor for one in self.readings))
        return frozenset((*own, *(self.path.factors if self.path else ())))

    def answer_to(self, factor: str) -> Literal["accept", "withhold"] | None:
        """What a person says of the shock that was read of a factor."""
        return next((one.answer for one in self.disputes if one.factor == factor), None)

    @model_validator(mode="after")
    def _one_course(self) -> Scenario:
        if self.path is not None and (self.shocks or self.replay):
            raise ValueError("'path' stands in the place of 'shocks' and 'replay'; give one of them")
        return self

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found = without_defaults(dump(self), path=None, level=None, lineage=None, critical=None)
        return {name: value for name, value in found.items() if name not in _UNSET or value}

    @field_validator("channels")
    @classmethod
    def _of_the_list(cls, columns: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
        if columns:
            from finllm.tools.channels import with_columns

            try:
                with_columns(columns)
            except InputError as error:
                raise ValueError(f"{error.message}; {error.fix}") from error
        return columns

    @model_validator(mode="after")
    def _no_duplicates(self) -> Scenario:
        for name, keys in (
            ("source id", [s.id for s in self.sources]),
            ("shock", [s.factor for s in self.shocks]),
            ("factor", list(self.factors)),
            ("reading", [one.factor for one in self.readings]),
            ("dispute", [one.factor for one in self.disputes]),
            ("trade", [one.id for one in self.trades]),
        ):
            repeated = sorted({key for key in keys if keys.count(key) > 1})
            if repeated:
                raise ValueError(f"duplicate {name}: {', '.join(repeated)}")
        return self


_UNSET = ("age", "channels", "readings", "disputes", "trades")


def load_scenario(path: Path) -> Scenario:
    """Read and validate a scenario file.

    Errors: InputError naming file, line and field for anything that is not a valid scenario.
    """
    return read_yaml(
        path, Scenario, "scenario",
        needs="a scenario is a mapping with 'title', 'narrative', 'horizon' and 'as_of'",
        example="run 'finllm scenarios list' for those shipped, and start from one",
    )  # fmt: skip

"""The market drivers: the table of those that come with finllm, the shock type, and how a shock is written."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from finllm.errors import InputError
from finllm.tools.data.currencies import fx_hint

FactorId = Literal["EQUITY_US", "CREDIT_BAA_AAA", "RATE_US_10Y", "OIL_WTI", "USD_BROAD", "GOLD", "VIX"]
"""The factors that the narrative agent judges: a type, since its answers are constrained to them as they are made."""
FACTOR_IDS: tuple[FactorId, ...] = get_args(FactorId)
FACTOR_TABLE_PATH = Path(__file__).with_name("factors.yaml")

LONGEST_HORIZON = 250
"""Trading days of the longest horizon, a year: a history tells no longer one."""

MoveUnit = Literal["return", "bp", "points"]
Direction = Literal["up", "down", "none"]
Size = Literal["small", "medium", "large", "extreme"]
Origin = Literal["user", "historical", "model", "table", "completed", "judgement"]
GIVEN = ("user", "historical", "judgement")
"""Origins of shocks that a person or history gives: they are not read, and no other reading of them is drawn."""


class Factor(BaseModel):
    """A row of the table: `unit` of its moves, `series` its history in the market store, if there is one.

    `imported` takes the place of `series` where it was imported, and `added`, a series of 'finllm data add', that of
    both; so does `series` where the user's days extend it. `stand_in`: a series that moves as it does, used where none
    of these is there, in replays alone. `liquidity` in trading days. `floor`: the level below which it cannot go,
    `level` where it is taken to stand while no history tells, both in the unit of its moves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    label: str
    unit: MoveUnit
    series: str | None = None
    imported: str | None = None
    added: str | None = None
    stand_in: str | None = None
    judged: bool = False
    liquidity: int = 120
    floor: float | None = None
    level: float | None = None


@cache
def factor_table() -> Mapping[str, Factor]:
    """Every factor that comes with finllm, by id (`factors.yaml`); read once, on first use."""
    import yaml

    rows = yaml.load(FACTOR_TABLE_PATH.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    return {id: Factor.model_validate({"id": id, **row}) for id, row in rows.items()}


class _Judged(Mapping[FactorId, Factor]):
    """The judged rows of the table, which is read when the first of them is asked for."""

    def __getitem__(self, id: FactorId) -> Factor:
        row = factor_table()[id]
        if not row.judged:
            raise KeyError(id)
        return row

    def __iter__(self) -> Iterator[FactorId]:
        return iter(FACTOR_IDS)

    def __len__(self) -> int:
        return len(FACTOR_IDS)


FACTORS: Mapping[FactorId, Factor] = _Judged()


class Shock(BaseModel):
    """A factor's move over the horizon, before any completion.

    `move` in the factor's unit (decimal return, bp or points); `sigma` its size in standard deviations of that
    factor's moves over the same horizon in `window`, or None where no history and no table gives one. `flags` say what
    to distrust about it.
    """

    model_config = ConfigDict(frozen=True)

    factor: str
    move: float
    unit: MoveUnit
    sigma: float | None
    origin: Origin
    window: str
    flags: tuple[str, ...] = ()


class UserShock(BaseModel):
    """A shock as a user wrote it, of a judged factor or one of the user's: in the factor's own unit, or in sigmas.

    `origin`: `judgement` where a person set it with name and reason.
    """

    model_config = ConfigDict(frozen=True)

    factor: str
    amount: float
    in_sigmas: bool
    origin: Literal["user", "judgement"] = "user"


_MOVE = re.compile(r"^\s*([+-]?\d+(?:\.\d+)?)\s*(%|bp|points|pts|sigma|σ)\s*$")
_UNIT_OF = {"%": "return", "bp": "bp", "points": "points", "pts": "points"}
_EXAMPLE: dict[MoveUnit, str] = {"return": "'+40%'", "bp": "'+75bp'", "points": "'+12points'"}


def parse_user_shock(factor: str, move: str, units: Mapping[str, MoveUnit] | None = None) -> UserShock:
    """Read a move such as `+40%`, `-75bp`, `+12points` or `-3sigma` for a factor; `units` are those of the known ones.

    Errors: InputError for an unknown factor, an unreadable move, or a unit that is not the factor's.
    """
    known = units or {id: one.unit for id, one in FACTORS.items()}
    if factor not in known:
        others = f"use one of {', '.join(known)}, or a series of your --prices"
        raise InputError(f"unknown factor {factor!r}", fix=fx_hint(factor) or others)
    example = f"write {_EXAMPLE[known[factor]]} or '-3sigma'"
    number, unit = _read_move(factor, move, example)
    if unit in ("sigma", "σ"):
        return UserShock(factor=factor, amount=number, in_sigmas=True)
    if _UNIT_OF[unit] != known[factor]:
        raise InputError(f"{factor!r} does not move in {unit!r}", fix=example)
    return UserShock(factor=factor, amount=number / 100 if unit == "%" else number, in_sigmas=False)


def check_move(factor: str, move: str) -> None:
    """The move can be read, whatever unit the factor turns out to have. Errors: InputError."""
    _read_move(factor, move, "write '+40%', '+75bp', '+12points' or '-3sigma'")


def _read_move(factor: str, move: str, example: str) -> tuple[float, str]:
    match = _MOVE.match(move)
    if match is None:
        raise InputError(f"cannot read the move {move!r} of {factor!r}", fix=example)
    number, unit = float(match[1]), match[2]
    if not math.isfinite(number) or (unit == "%" and number < -100):
        raise InputError(f"{factor!r} cannot move by {move!r}", fix="give a finite move, of a price not below -100%")
    return number, unit

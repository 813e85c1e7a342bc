"""The market drivers: the seven factors that the narrative agent judges, the shock type, and how a shock is written."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from finllm.errors import InputError

FactorId = Literal["EQUITY_US", "CREDIT_BAA_AAA", "RATE_US_10Y", "OIL_WTI", "USD_BROAD", "GOLD", "VIX"]
FACTOR_IDS: tuple[FactorId, ...] = get_args(FactorId)

MoveUnit = Literal["return", "bp", "points"]
Direction = Literal["up", "down", "none"]
Size = Literal["small", "medium", "large", "extreme"]
Origin = Literal["user", "historical", "model", "table"]


@dataclass(frozen=True)
class Factor:
    """A market driver: `unit` is the unit of its moves; `series` its history in the market store, if there is one."""

    id: FactorId
    label: str
    unit: MoveUnit
    series: str | None


FACTORS: dict[FactorId, Factor] = {
    factor.id: factor
    for factor in (
        Factor("EQUITY_US", "US equities (S&P 500)", "return", "SP500"),
        Factor("CREDIT_BAA_AAA", "credit spread, BAA over AAA", "bp", "BAA_AAA"),
        Factor("RATE_US_10Y", "US 10-year rate", "bp", None),
        Factor("OIL_WTI", "crude oil (WTI)", "return", "WTI"),
        Factor("USD_BROAD", "US dollar, broad index", "return", None),
        Factor("GOLD", "gold", "return", None),
        Factor("VIX", "implied volatility (VIX)", "points", "VIX"),
    )
}


class Shock(BaseModel):
    """A factor's move over the horizon.

    `move` in the factor's unit (decimal return, bp or points); `sigma` its size in standard deviations of that
    factor's moves over the same horizon in `window`, or None where no history and no table gives one.
    """

    model_config = ConfigDict(frozen=True)

    factor: FactorId
    move: float
    unit: MoveUnit
    sigma: float | None
    origin: Origin
    window: str
    because: tuple[str, ...] = ()


class UserShock(BaseModel):
    """A shock as a user wrote it, of a judged factor or one of the user's: in the factor's own unit, or in sigmas."""

    model_config = ConfigDict(frozen=True)

    factor: str
    amount: float
    in_sigmas: bool


_MOVE = re.compile(r"^\s*([+-]?\d+(?:\.\d+)?)\s*(%|bp|points|pts|sigma|σ)\s*$")
_UNIT_OF = {"%": "return", "bp": "bp", "points": "points", "pts": "points"}
_EXAMPLE: dict[MoveUnit, str] = {"return": "'+40%'", "bp": "'+75bp'", "points": "'+12points'"}


def parse_user_shock(factor: str, move: str, units: Mapping[str, MoveUnit] | None = None) -> UserShock:
    """Read a move such as `+40%`, `-75bp`, `+12points` or `-3sigma` for a factor; `units` are those of the known ones.

    Errors: InputError for an unknown factor, an unreadable move, or a unit that is not the factor's.
    """
    known = units or {id: one.unit for id, one in FACTORS.items()}
    if factor not in known:
        raise InputError(f"unknown factor {factor!r}", fix=f"use one of {', '.join(known)}")
    example = f"write {_EXAMPLE[known[factor]]} or '-3sigma'"
    match = _MOVE.match(move)
    if match is None:
        raise InputError(f"cannot read the move {move!r} of {factor!r}", fix=example)
    number, unit = float(match[1]), match[2]
    if not math.isfinite(number) or (unit == "%" and number < -100):
        raise InputError(f"{factor!r} cannot move by {move!r}", fix="give a finite move, of a price not below -100%")
    if unit in ("sigma", "σ"):
        return UserShock(factor=factor, amount=number, in_sigmas=True)
    if _UNIT_OF[unit] != known[factor]:
        raise InputError(f"{factor!r} does not move in {unit!r}", fix=example)
    return UserShock(factor=factor, amount=number / 100 if unit == "%" else number, in_sigmas=False)

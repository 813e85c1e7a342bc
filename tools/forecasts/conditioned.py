"""A forecast given the narrative: a judged shock shifts and widens the numeric distribution by a stated rule."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, model_validator

from finllm.errors import InputError
from finllm.tools.data.factors import Direction, FactorId, MoveUnit, Shock, Size
from finllm.tools.forecasts.forecast import Band, Forecast

KEPT_SPREAD = 0.75
"""Spread of the change where the judged event happens, as a share of the forecast's own.

A size bucket is known up to one bucket either way. In σ of a normal the four sizes (`shocks.QUANTILE`) stand 0.64
apart, so three buckets span 1.92, against 2.56 for the 80 % interval of the forecast: 0.75.
"""
LEAST = -0.999
"""No judged return may reach −100 %."""


class ShockJudgement(BaseModel):
    """What the narrative agent judged of a factor, with the move that a tool gave that direction and size.

    `probability` (0 to 1) is the measured probability of the judgement; `move` in `unit`, as
    `shocks.judged_shock` derives it: the model wrote none of it. Direction `none` is a judged move of zero.
    """

    model_config = ConfigDict(frozen=True)

    factor: str
    direction: Direction
    size: Size | None
    probability: float = Field(ge=0, le=1)
    move: float
    unit: MoveUnit

    @model_validator(mode="after")
    def _coherent(self) -> ShockJudgement:
        sign = {"up": 1, "down": -1, "none": 0}[self.direction]
        if not math.isfinite(self.move) or self.move * sign < 0 or (sign == 0 and self.move != 0):
            raise ValueError(f"the move {self.move!r} is not {self.direction!r}")
        if (self.size is None) != (self.direction == "none"):
            raise ValueError("'size' is missing exactly when 'direction' is 'none'")
        return self

    @classmethod
    def of(cls, shock: Shock, direction: Direction, size: Size | None, probability: float) -> ShockJudgement:
        """The judgement that `shock` (by `shocks.judged_shock`) was derived from, held with this probability."""
        return cls(factor=shock.factor, direction=direction, size=size, probability=probability, move=shock.move,
                   unit=shock.unit)  # fmt: skip


class Conditioned(BaseModel):
    """A forecast given a judgement: `point` and `bands` in the forecast's unit.

    `mean` and `spread` (standard deviation) are of the change where it is additive: in logs for a return. `stretch` is
    the spread over that of the forecast, so every band is as much wider or narrower. `rule` says what was done.
    """

    model_config = ConfigDict(frozen=True)

    forecast: Forecast
    judgement: ShockJudgement | None
    point: float
    bands: tuple[Band, ...]
    mean: float
    spread: float
    stretch: float
    rule: str


def condition(forecast: Forecast, judgement: ShockJudgement | None) -> Conditioned:
    """The change as a mixture: with probability p the judged event's, else the forecast's own; matched in two moments.

    With m the forecast's point, s its spread (its 80 % interval, or the band nearest to it, over that of a normal), j
    the judged move and κ = 0.75, in logs for a return: mean m′ = (1−p)·m + p·j, variance s′² = (1−p)·s² + p·κ²·s² +
    p·(1−p)·(j−m)². A band keeps its shape: m′ + (end − m)·s′/s. So p = 0, or no judgement, changes nothing; p = 1 puts
    the judged move in the middle of a narrower interval; and from p = ½ up, less probability is a wider interval.
    Errors: InputError for a judgement in another unit, a return at or below −100 %, or a forecast without spread.
    """
    base, ends = _additive(forecast)
    spread = _spread(forecast, base, ends)
    if judgement is None or judgement.probability == 0:
        return Conditioned(forecast=forecast, judgement=judgement, point=forecast.point, bands=forecast.bands,
                           mean=base, spread=spread, stretch=1.0, rule="the forecast as it was")  # fmt: skip
    if judgement.unit != forecast.unit:
        raise InputError(
            f"{judgement.factor!r} was judged in {judgement.unit!r}, and {forecast.name!r} is forecast in"
            f" {forecast.unit!r}",
            fix="condition the forecast of the judged factor's own series",
        )
    if forecast.unit == "return" and judgement.move <= LEAST:
        raise InputError(f"the judged return of {judgement.factor!r} is {judgement.move!r}", fix="stay above −99.9 %")
    chance, move = judgement.probability, _to_additive(judgement.move, forecast.unit)
    mean = (1 - chance) * base + chance * move
    variance = (1 - chance + chance * KEPT_SPREAD**2) * spread**2 + chance * (1 - chance) * (move - base) ** 2
    stretch = math.sqrt(variance) / spread
    bands = tuple(
        Band(level=band.level, lower=_from_additive(mean + (low - base) * stretch, forecast.unit),
             upper=_from_additive(mean + (high - base) * stretch, forecast.unit))
        for band, (low, high) in zip(forecast.bands, ends, strict=True)
    )  # fmt: skip
    return Conditioned(
        forecast=forecast, judgement=judgement, point=_from_additive(mean, forecast.unit), bands=bands, mean=mean,
        spread=math.sqrt(variance), stretch=stretch,
        rule="mixture of the forecast and the judged move, matched in mean and variance",
    )  # fmt: skip


def condition_all(
    forecasts: Mapping[FactorId, Forecast], judgements: Mapping[FactorId, ShockJudgement]
) -> dict[FactorId, Conditioned]:
    """Each factor's forecast given its own judgement, if it has one; judgements without a forecast are not used."""
    return {factor: condition(one, judgements.get(factor)) for factor, one in forecasts.items()}


def narrowing(before: Forecast | Conditioned, after: Forecast | Conditioned, level: float = 0.80) -> float:
    """How much narrower the interval became: ln(width before / width after), negative where it widened.

    Widths are those of the band at `level`, in logs for a return, so that a fall does not count as certainty. Because
    it is a logarithm, steps add: narrowing(a, c) = narrowing(a, b) + narrowing(b, c); ln 2 is half the width. Errors:
    InputError for forecasts of different series, horizons or units, a band that is missing, or one without width.
    """
    one, other = _base(before), _base(after)
    if (one.name, one.horizon, one.unit) != (other.name, other.horizon, other.unit):
        raise InputError(
            f"{one.name!r} over {one.horizon} days and {other.name!r} over {other.horizon} are not one forecast",
            fix="compare intervals of the same series, horizon and unit",
        )
    return math.log(_width(before, one, level) / _width(after, other, level))


def _base(either: Forecast | Conditioned) -> Forecast:
    return either if isinstance(either, Forecast) else either.forecast


def _width(either: Forecast | Conditioned, base: Forecast, level: float) -> float:
    for band in either.bands:
        if math.isclose(band.level, level):
            width = _to_additive(band.upper, base.unit) - _to_additive(band.lower, base.unit)
            if width > 0:
                return width
    raise InputError(f"{base.name!r} has no {level:.0%} interval with a width", fix="forecast it at that level")


def _additive(forecast: Forecast) -> tuple[float, list[tuple[float, float]]]:
    """Point and ends of the bands, in logs for a return."""
    unit = forecast.unit
    ends = [(_to_additive(band.lower, unit), _to_additive(band.upper, unit)) for band in forecast.bands]
    return _to_additive(forecast.point, unit), ends


def _spread(forecast: Forecast, base: float, ends: list[tuple[float, float]]) -> float:
    from scipy.stats import norm

    if not forecast.bands:
        raise InputError(f"the forecast of {forecast.name!r} has no interval", fix="forecast it at a level")
    at = min(range(len(ends)), key=lambda one: abs(forecast.bands[one].level - 0.80))
    low, high = ends[at]
    spread = (high - low) / (2 * float(norm.ppf((1 + forecast.bands[at].level) / 2)))
    if not (math.isfinite(spread) and spread > 0 and math.isfinite(base)):
        raise InputError(f"the interval of {forecast.name!r} has no width", fix="use a series that moves")
    return spread


def _to_additive(value: float, unit: MoveUnit) -> float:
    return math.log1p(max(value, LEAST)) if unit == "return" else value


def _from_additive(value: float, unit: MoveUnit) -> float:
    return math.expm1(value) if unit == "return" else value

"""Completion: where every factor goes given the direct shocks, how plausible these are, and what stays open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from finllm.errors import InputError
from finllm.tools.data.factors import Shock
from finllm.tools.pnl.bands import DRAWS, gaussian_draws
from finllm.tools.pnl.factorset import Driver, FactorSet
from finllm.tools.pnl.history import History
from finllm.tools.pnl.outcome import AppliedShock
from finllm.tools.pnl.propagate import Covariance, Propagated, contradictions, covariance_of, propagate
from finllm.tools.pnl.shocks import BOUNDS, FAR, FLOOR

Tails = Literal["gaussian", "vine"]


@dataclass(frozen=True)
class Completion:
    """Where every factor goes: `moves` of the shocked and completed ones, and draws (n, n_others) about the means.

    `others` are the completed factors, none where they are held. `words` say how the draws were made.
    """

    moves: dict[str, float]
    given: Propagated
    others: tuple[str, ...]
    draws: np.ndarray
    covariance: Covariance
    words: str
    notes: tuple[str, ...]


def complete(
    factors: FactorSet, shocks: Mapping[str, Shock], past: History, days: int, *, on: bool, tails: Tails = "gaussian",
    seed: int = 0, draws: int = DRAWS, least: Mapping[str, float] | None = None,
) -> Completion:  # fmt: skip
    """Move the factors of `past` that were not shocked to their means given the shocks, or hold them still.

    With a vine it is their medians, and the draws are about these. A return is not completed below −95 %, nor drawn
    below −100 %, and no factor falls farther than `least` says: linear moves know no such floor. Errors: see
    `covariance_of`, `propagate` and `fat_tailed`; where the others are held these only leave the plausibility unknown,
    which is noted.
    """
    moved = {name: one.move for name, one in shocks.items()}
    try:
        covariance = covariance_of(past, days)
        inside = {name: move for name, move in moved.items() if name in covariance.names}
        given = propagate(inside, covariance)
    except InputError as error:
        if on:
            raise
        nothing = Covariance((), np.zeros((0, 0)))
        unknown = f"how plausible the shocks are together is not known: {error.message}"
        return _held(moved, propagate({}, nothing), nothing, (unknown,))
    notes = tuple(contradictions(inside, given, covariance).values())
    if not on or not inside:
        return _held(moved, given, covariance, notes)
    if tails == "vine":
        from finllm.tools.pnl.vine import fat_tailed

        fat = fat_tailed(inside, past, days, draws=draws, seed=seed)
        means, drawn, words = fat.centres, fat.draws - fat.centres, fat.method
    else:
        means, drawn = given.means.copy(), gaussian_draws(given.residual, draws, seed)
        words = f"Gaussian residual of {', '.join(given.others) or 'no factor'}"
    for at, name in enumerate(given.others):
        if factors[name].unit == "return":
            if means[at] < FLOOR:
                notes = (*notes, f"{name}: linear completion gives {means[at]:.0%}; it is stopped at {FLOOR:.0%}")
            means[at] = max(means[at], FLOOR)
            drawn[:, at] = np.maximum(drawn[:, at], BOUNDS["return"][0] - means[at])
        if (floor := (least or {}).get(name)) is not None and np.isfinite(floor):
            if means[at] < floor:
                notes = (*notes, f"{name}: linear completion takes it below its floor; it is stopped there")
            means[at] = max(means[at], floor)
            drawn[:, at] = np.maximum(drawn[:, at], floor - means[at])
    completed = dict(zip(given.others, means.tolist(), strict=True))
    return Completion(moved | completed, given, given.others, drawn, covariance, words, notes)


def _held(moves: dict[str, float], given: Propagated, covariance: Covariance, notes: tuple[str, ...]) -> Completion:
    nothing = np.zeros((DRAWS, 0))
    return Completion(moves, given, (), nothing, covariance, "factors without a shock are held still", notes)


def shock_rows(
    factors: FactorSet, shocks: Mapping[str, Shock], completion: Completion, past: History
) -> tuple[AppliedShock, ...]:
    """Every moved factor with its size, its plausibility and what to distrust about it."""
    given = completion.given
    against = contradictions({name: shocks[name].move for name in given.shocked}, given, completion.covariance)
    rows: list[AppliedShock] = []
    for name, move in completion.moves.items():
        driver, inside = factors[name], name in given.shocked
        if name in shocks:
            one = shocks[name]
            flags = (*one.flags, *((against[name],) if name in against else ()))
            if not inside:
                why = past.missing.get(name, "no shared history").replace("it has no history", "no history")
                flags = (*flags, f"unpropagated: {why}, shocked directly")
            rows.append(AppliedShock(
                factor=name, label=driver.label, move=move, unit=driver.unit, origin=one.origin, sigma=one.sigma,
                mahalanobis=given.mahalanobis if inside else None,
                given_others=given.given_others.get(name), lower=None, upper=None,
                window=one.window, flags=flags,
            ))  # fmt: skip
            continue
        spread = completion.draws[:, completion.others.index(name)]
        sigma = move / completion.covariance.sigma(name)
        rows.append(AppliedShock(
            factor=name, label=driver.label, move=move, unit=driver.unit, origin="completed",
            sigma=sigma, mahalanobis=given.mahalanobis, given_others=None,
            lower=move + float(np.quantile(spread, 0.05)), upper=move + float(np.quantile(spread, 0.95)),
            window="mean given the shocks; band of 90 %",
            flags=_completed_flags(move, sigma, driver),
        ))  # fmt: skip
    return tuple(rows)


def _completed_flags(move: float, sigma: float, driver: Driver) -> tuple[str, ...]:
    if driver.unit == "return" and move <= FLOOR:
        return (f"extrapolated: stopped at {FLOOR:.0%}, where linear completion does not hold",)
    return (f"extrapolated: beyond {FAR:g} σ",) if abs(sigma) > FAR else ()

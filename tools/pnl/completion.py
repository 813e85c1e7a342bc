"""The story of a run: where every factor goes given the direct shocks, how plausible that is, and what stays open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from finllm.tools.pnl.bands import DRAWS, gaussian_draws
from finllm.tools.pnl.factorset import Driver, FactorSet
from finllm.tools.pnl.history import History
from finllm.tools.pnl.outcome import ShockRow
from finllm.tools.pnl.propagate import Covariance, Propagated, contradictions, covariance_of, propagate
from finllm.tools.pnl.shocks import BOUNDS, FLOOR
from finllm.tools.pnl.sizes import FAR, Direct
from finllm.tools.pnl.vine import fat_tailed

Tails = Literal["gaussian", "vine"]


@dataclass(frozen=True)
class Story:
    """Where every factor goes: `moves` of the shocked and propagated ones, and draws (n, n_others) about the means."""

    moves: dict[str, float]
    given: Propagated
    others: tuple[str, ...]
    draws: np.ndarray
    covariance: Covariance
    words: str
    notes: tuple[str, ...]


def tell(
    factors: FactorSet, direct: Mapping[str, Direct], past: History, days: int, *, on: bool, tails: Tails, seed: int
) -> Story:
    """Move the factors of `past` that were not shocked to their means given the shocks, or hold them still.

    With a vine it is their medians, and the draws are about these.
    A return is not propagated below −95 %, nor drawn below −99.9 %: linear moves know no such floor. Errors: see
    `propagate` and `fat_tailed`.
    """
    covariance = covariance_of(past, days)
    shocked = {name: one.move for name, one in direct.items()}
    inside = {name: move for name, move in shocked.items() if name in covariance.names}
    given = propagate(inside, covariance)
    notes = tuple(contradictions(inside, given, covariance).values())
    if not on or not inside:
        words = "factors without a shock are held still"
        return Story(shocked, given, (), np.zeros((DRAWS, 0)), covariance, words, notes)
    if tails == "vine":
        fat = fat_tailed(inside, past, days, draws=DRAWS, seed=seed)
        means, draws, words = fat.centres, fat.draws - fat.centres, fat.method
    else:
        means, draws = given.means.copy(), gaussian_draws(given.residual, DRAWS, seed)
        words = f"Gaussian residual of {', '.join(given.others) or 'no factor'}"
    for at, name in enumerate(given.others):
        if factors[name].unit == "return":
            if means[at] < FLOOR:
                notes = (*notes, f"{name}: linear propagation gives {means[at]:.0%}; it is stopped at {FLOOR:.0%}")
            means[at] = max(means[at], FLOOR)
            draws[:, at] = np.maximum(draws[:, at], BOUNDS["return"][0] - means[at])
    moves = shocked | dict(zip(given.others, means.tolist(), strict=True))
    return Story(moves, given, given.others, draws, covariance, words, notes)


def shock_rows(factors: FactorSet, direct: Mapping[str, Direct], story: Story, past: History) -> tuple[ShockRow, ...]:
    """Every moved factor with its size, its plausibility and what to distrust about it."""
    against = contradictions({name: direct[name].move for name in story.given.shocked}, story.given, story.covariance)
    rows: list[ShockRow] = []
    for name, move in story.moves.items():
        driver, inside = factors[name], name in story.given.shocked
        if name in direct:
            one = direct[name]
            flags = (*one.flags, *((against[name],) if name in against else ()))
            if not inside:
                why = past.missing.get(name, "no shared history").replace("it has no history", "no history")
                flags = (*flags, f"unpropagated: {why}, shocked directly")
            rows.append(ShockRow(
                factor=name, label=driver.label, move=move, unit=driver.unit, origin=one.origin, sigma=one.sigma,
                mahalanobis=story.given.mahalanobis if inside else None,
                given_others=story.given.given_others.get(name), lower=None, upper=None,
                window=one.window, flags=flags,
            ))  # fmt: skip
            continue
        spread = story.draws[:, story.others.index(name)]
        sigma = move / story.covariance.sigma(name)
        rows.append(ShockRow(
            factor=name, label=driver.label, move=move, unit=driver.unit, origin="propagated",
            sigma=sigma, mahalanobis=story.given.mahalanobis, given_others=None,
            lower=move + float(np.quantile(spread, 0.05)), upper=move + float(np.quantile(spread, 0.95)),
            window="mean given the shocks; band of 90 %",
            flags=_propagated_flags(move, sigma, driver),
        ))  # fmt: skip
    return tuple(rows)


def _propagated_flags(move: float, sigma: float, driver: Driver) -> tuple[str, ...]:
    if driver.unit == "return" and move <= FLOOR:
        return (f"extrapolated: stopped at {FLOOR:.0%}, where linear propagation does not hold",)
    return (f"extrapolated: beyond {FAR:g} σ",) if abs(sigma) > FAR else ()

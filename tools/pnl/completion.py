"""Completion: where every factor goes given the direct shocks, how plausible these are, and what stays open."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from finllm.errors import InputError
from finllm.tools.data.factors import Shock
from finllm.tools.evidence import show
from finllm.tools.pnl.bands import DRAWS, gaussian_draws
from finllm.tools.pnl.factorset import Driver, FactorSet
from finllm.tools.pnl.history import History
from finllm.tools.pnl.joint import MIN_PAIR, Joint
from finllm.tools.pnl.outcome import AppliedShock, JointDistance
from finllm.tools.pnl.propagate import Covariance, Propagated, contradictions, propagate
from finllm.tools.pnl.shocks import BOUNDS, FAR, FLOOR
from finllm.tools.pnl.sizes import FactorView

REACH = 2.0
"""Times the farthest past move of a factor over the horizon beyond which it is not completed."""

Tails = Literal["gaussian", "vine"]


@dataclass(frozen=True)
class Completion:
    """Where every factor goes: `moves` of the shocked and completed ones, and draws (n, n_others) about the means.

    `given` is under `covariance`, of all past moves alike, and tells how plausible the shocks are; `implied`, what the
    other shocks imply for each shocked factor, is under the covariance near them. `others` are the completed factors,
    none where they are held; `stopped` are those that a bound stops. Where nothing is shocked they have draws and no
    moves. `words` say how the draws were made, `near` which past they are from, under `near_covariance`.
    """

    moves: dict[str, float]
    given: Propagated
    implied: dict[str, float]
    others: tuple[str, ...]
    draws: np.ndarray
    covariance: Covariance
    words: str
    near: str
    near_covariance: Covariance
    notes: tuple[str, ...]
    stopped: frozenset[str] = frozenset()


def complete(
    view: FactorView, shocks: Mapping[str, Shock], joint: Joint, *, on: bool, tails: Tails = "gaussian",
    past: History | None = None, seed: int = 0, draws: int = DRAWS, stressed: bool = False,
    still: Collection[str] = (), read: Mapping[str, Shock] | None = None,
) -> Completion:  # fmt: skip
    """Move the factors of `joint` that were not shocked to their means given the shocks, or hold them still: all where
    it is not `on`, else those of `still`.

    Means and draws are under the covariance near the shocks (`stressed`: see `Joint.near`), and near those of `read`,
    which move nothing else. With a vine, fitted to the
    moves of `past`, it is their medians, and the draws are about these. No factor is completed farther than `REACH`
    times its farthest past move, nor below −95 % or its floor, nor drawn below −100 % or that: linear moves know no
    such bounds. Errors: see `propagate` and `fat_tailed`; where the others are held these only leave the plausibility
    unknown, which is noted.
    """
    moved = {name: one.move for name, one in shocks.items()}
    covariance = joint.covariance
    inside = {name: move for name, move in moved.items() if name in covariance.names}
    try:
        given = propagate(inside, covariance)
    except InputError as error:
        if on:
            raise
        nothing = Covariance((), np.zeros((0, 0)))
        unknown = f"how plausible the shocks are together is not known: {error.message}"
        return _held(moved, propagate({}, nothing), {}, nothing, nothing, (unknown,))
    story = {name: one.move for name, one in (read or {}).items() if name in covariance.names}
    near, how = joint.near(story | inside, stressed=stressed)
    towards, apart = _reached(propagate(inside, near), near, still)
    notes = tuple(contradictions(inside, given, covariance).values())
    if not on:
        return _held(moved, given, towards.implied, covariance, near, notes)
    notes += tuple(f"{name} is held still: too few of its moves are shared with the shocked factors" for name in apart)
    if tails == "vine" and inside:
        from finllm.tools.pnl.vine import fat_tailed

        assert past is not None
        fat = fat_tailed(inside, past, joint.horizon, draws=draws, seed=seed)
        kept = [at for at, name in enumerate(fat.others) if name not in still]
        towards = replace(towards, others=tuple(fat.others[at] for at in kept))
        means, drawn, words = fat.centres[kept], (fat.draws - fat.centres)[:, kept], fat.method
    else:
        means, drawn = towards.means.copy(), gaussian_draws(towards.residual, draws, seed)
        words = f"Gaussian residual of {', '.join(towards.others) or 'no factor'}"
    stopped: set[str] = set()
    for at, name in enumerate(towards.others):
        low, high = _reach(view, name, joint.horizon)
        if not low <= means[at] <= high:
            move = show(float(means[at]), view.factors[name].unit)
            means[at] = min(max(means[at], low), high)
            stopped.add(name)
            stop = show(float(means[at]), view.factors[name].unit)
            notes = (*notes, f"{name}: linear completion gives {move}; it is stopped at {stop}")
        if view.factors[name].unit == "return":
            drawn[:, at] = np.maximum(drawn[:, at], BOUNDS["return"][0] - means[at])
        if math.isfinite(floor := view.least_move(name)[0]):
            drawn[:, at] = np.maximum(drawn[:, at], floor - means[at])
    completed = dict(zip(towards.others, means.tolist(), strict=True)) if inside else {}
    return Completion(moved | completed, given, towards.implied, towards.others, drawn, covariance, words, how, near,
                      notes, frozenset(stopped))  # fmt: skip


def _reached(given: Propagated, covariance: Covariance, still: Collection[str]) -> tuple[Propagated, list[str]]:
    """The same without the factors held `still` and those that share no history with any shocked one; these by name."""
    cross = covariance.matrix[np.ix_(covariance.at(given.others), covariance.at(given.shocked))]
    tied = (cross != 0).any(axis=1) if given.shocked else np.ones(len(given.others), dtype=bool)
    kept = np.flatnonzero(tied & np.array([name not in still for name in given.others], dtype=bool))
    apart = [name for name, one in zip(given.others, tied, strict=True) if not one and name not in still]
    left = replace(given, others=tuple(given.others[at] for at in kept), means=given.means[kept],
                   residual=given.residual[np.ix_(kept, kept)])  # fmt: skip
    return left, apart


def _reach(view: FactorView, name: str, horizon: int) -> tuple[float, float]:
    """How far down and up a factor may be completed, in its own unit."""
    moves = view.size(name, horizon).moves
    low, high = (-math.inf, math.inf) if moves is None else (REACH * float(moves.min()), REACH * float(moves.max()))
    if view.factors[name].unit == "return":
        low = max(low, FLOOR)
    return min(0.0, max(low, view.least_move(name)[0])), max(0.0, high)


def _held(
    moves: dict[str, float], given: Propagated, implied: dict[str, float], covariance: Covariance,
    near: Covariance, notes: tuple[str, ...],
) -> Completion:  # fmt: skip
    nothing = np.zeros((DRAWS, 0))
    return Completion(
        moves, given, implied, (), nothing, covariance, "factors without a shock are held still", "", near, notes
    )


def joint_distance(joint: Joint, given: Propagated) -> JointDistance | None:
    """How far the shocks go together beside past moves of the same factors; None where too few are known.

    What sets a set apart that went farther than all of these is the factor farthest from what the others imply.
    """
    if not given.shocked:
        return None
    past, words = joint.distances(given.shocked)
    if len(past) < MIN_PAIR:
        return None
    farthest, nearer = float(past.max()), float((past < given.mahalanobis).mean())
    apart = max(given.given_others, key=lambda name: abs(given.given_others[name]))
    return JointDistance(distance=given.mahalanobis, nearer=nearer, farthest=farthest, count=len(past), window=words,
                         apart=apart if given.mahalanobis > farthest else None, factors=len(given.shocked))  # fmt: skip


def shock_rows(
    factors: FactorSet,
    shocks: Mapping[str, Shock],
    completion: Completion,
    missing: Mapping[str, str],
    far: JointDistance | None,
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
            if far and far.apart == name:
                flags = (*flags, "beyond history: sets the shocks apart from every past move of these factors")
            if not inside:
                why = missing.get(name, "no shared history").replace("it has no history", "no history")
                flags = (*flags, f"unpropagated: {why}, shocked directly")
            rows.append(AppliedShock(
                factor=name, label=driver.label, move=move, unit=driver.unit, origin=one.origin, sigma=one.sigma,
                mahalanobis=given.mahalanobis if inside else None,
                given_others=given.given_others.get(name), implied=completion.implied.get(name), lower=None, upper=None,
                window=one.window, flags=flags,
            ))  # fmt: skip
            continue
        spread = completion.draws[:, completion.others.index(name)]
        sigma = move / completion.covariance.sigma(name)
        rows.append(AppliedShock(
            factor=name, label=driver.label, move=move, unit=driver.unit, origin="completed",
            sigma=sigma, mahalanobis=given.mahalanobis, given_others=None, implied=None,
            lower=move + float(np.quantile(spread, 0.05)), upper=move + float(np.quantile(spread, 0.95)),
            window=f"mean given the shocks, {completion.near}; band of 90 %",
            flags=_completed_flags(move, sigma, driver, stopped=name in completion.stopped),
        ))  # fmt: skip
    return tuple(rows)


def _completed_flags(move: float, sigma: float, driver: Driver, *, stopped: bool) -> tuple[str, ...]:
    if stopped and not (driver.unit == "return" and move <= FLOOR):
        return ("extrapolated: stopped at its bound, beyond which completion does not hold",)
    if driver.unit == "return" and move <= FLOOR:
        return (f"extrapolated: stopped at {FLOOR:.0%}, where linear completion does not hold",)
    return (f"extrapolated: beyond {FAR:g} σ",) if abs(sigma) > FAR else ()

"""Named episodes of market stress, and the one whose moves are nearest to a set of shocks."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from finllm.errors import InputError
from finllm.tools.pnl.propagate import SINGULAR, Covariance
from finllm.tools.pnl.shocks import replayed
from finllm.tools.pnl.sizes import FactorView


@dataclass(frozen=True)
class Episode:
    """A window, close to close, over which the S&P 500 fell; `title` names what the fall is known by."""

    id: str
    title: str
    start: dt.date
    end: dt.date


EPISODES: dict[str, Episode] = {
    one.id: one
    for one in (
        Episode("russia-ltcm-1998", "Russian default and LTCM", dt.date(1998, 7, 17), dt.date(1998, 8, 31)),
        Episode("lehman-2008", "Lehman Brothers", dt.date(2008, 9, 12), dt.date(2008, 11, 20)),
        Episode("downgrade-2011", "US downgrade and euro debt", dt.date(2011, 7, 22), dt.date(2011, 8, 8)),
        Episode("taper-2013", "Taper tantrum", dt.date(2013, 5, 21), dt.date(2013, 6, 24)),
        Episode("renminbi-2015", "Renminbi devaluation", dt.date(2015, 8, 17), dt.date(2015, 8, 25)),
        Episode("volmageddon-2018", "Short-volatility unwind", dt.date(2018, 1, 26), dt.date(2018, 2, 8)),
        Episode("pandemic-2020", "Pandemic", dt.date(2020, 2, 19), dt.date(2020, 3, 23)),
        Episode("inflation-2022", "Inflation and rate rises", dt.date(2022, 1, 3), dt.date(2022, 10, 12)),
    )
}
"""The eight windows of the outcome back-test, by id."""


@dataclass(frozen=True)
class Nearest:
    """An episode with the factors' moves over it, and its distance to the shocks over the `shared` factors."""

    episode: Episode
    moves: dict[str, float]
    distance: float
    shared: tuple[str, ...]


def episode(id: str) -> Episode:
    """The episode of that id. InputError if there is none."""
    if id not in EPISODES:
        raise InputError(f"no episode {id!r}", fix=f"use one of {', '.join(EPISODES)}, or give two dates")
    return EPISODES[id]


def nearest(sizes: Mapping[str, float], covariance: Covariance, view: FactorView) -> Nearest | None:
    """The episode over by `as_of` whose moves are nearest to `sizes`, both in σ of their own horizon.

    Distance √((z − zₑ)ᵀR⁻¹(z − zₑ)) over the shocked factors that the episode has moves of, R their correlation (the
    identity between factors without one). Only episodes that share the most factors compete. None without any.
    """
    found: list[Nearest] = []
    for one in EPISODES.values():
        if one.end > view.as_of:
            continue
        shocks, _missing = replayed(view, (one.start, one.end))
        past = {shock.factor: shock.sigma for shock in shocks if shock.sigma is not None}
        shared = tuple(name for name in sizes if name in past)
        if shared:
            gap = np.array([sizes[name] - past[name] for name in shared])
            moves = {shock.factor: shock.move for shock in shocks}
            found.append(Nearest(one, moves, _length(gap, shared, covariance), shared))
    most = max((len(one.shared) for one in found), default=0)
    return min((one for one in found if len(one.shared) == most), key=lambda one: one.distance, default=None)


def _length(gap: np.ndarray, names: tuple[str, ...], covariance: Covariance) -> float:
    correlation = np.eye(len(names))
    known = [at for at, name in enumerate(names) if name in covariance.names]
    if known:
        block = covariance.sub([names[at] for at in known])
        scale = np.sqrt(np.diag(block))
        correlation[np.ix_(known, known)] = block / np.outer(scale, scale)
    if np.linalg.eigvalsh(correlation)[0] <= SINGULAR:
        correlation = np.eye(len(names))
    return math.sqrt(float(gap @ np.linalg.solve(correlation, gap)))

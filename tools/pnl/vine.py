"""The fat-tailed alternative to Gaussian propagation: skfolio's vine copula, sampled given the shocks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from finllm.errors import InputError
from finllm.tools.pnl.history import History

MIN_FACTORS = 3
MIN_ROWS = 100
"""Moves below which no vine is fitted: its marginals would have no tail."""


@dataclass(frozen=True)
class FatTailed:
    """The factors that were not shocked, given the shocks: `draws` (n_draws, n_others) in their units."""

    shocked: tuple[str, ...]
    others: tuple[str, ...]
    draws: np.ndarray
    method: str

    @property
    def centres(self) -> np.ndarray:
        """Medians, (n_others,): a few far draws would carry a mean away."""
        return np.median(self.draws, axis=0)


def fat_tailed(shocks: Mapping[str, float], history: History, horizon: int, *, draws: int, seed: int) -> FatTailed:
    """Draw the other factors given the shocks from a regular vine fitted to the one-step moves.

    Marginals and pair copulas are chosen by AIC (skfolio's VineCopula; Aas et al. 2009), the shocked factors are its
    central nodes. A shock over the horizon enters as shock/√(horizon/step) and the draws are scaled back, which carries
    the tails of one step to the horizon: fatter than those of a sum. Errors: InputError for fewer than 100 moves or
    three factors, or a shock of a factor that has none.
    """
    shocked = tuple(shocks)
    if unknown := [name for name in shocked if name not in history.names]:
        raise InputError(f"{', '.join(unknown)} has no history for a vine copula", fix="shock it without propagation")
    if len(history.names) < MIN_FACTORS:
        raise InputError(f"a vine copula needs {MIN_FACTORS} factors, and {len(history.names)} share a history",
                         fix="use Gaussian tails, or shock or hold a further factor with a history")  # fmt: skip
    if len(history.moves) < MIN_ROWS:
        raise InputError(f"a vine copula needs {MIN_ROWS} moves, and {len(history.moves)} are shared",
                         fix="use Gaussian tails or a longer history")  # fmt: skip
    others = tuple(name for name in history.names if name not in shocks)
    scale = float(np.sqrt(horizon / history.step_days))
    if not others or not shocked:
        return FatTailed(shocked, others, np.zeros((draws, len(others))), "nothing to propagate")
    from skfolio.distribution import VineCopula

    spread = history.moves.to_numpy().std(axis=0, ddof=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # candidates that do not fit warn; the one that AIC chooses counts
        vine = VineCopula(central_assets=list(shocked), random_state=seed, n_jobs=1).fit(history.moves / spread)
        given: Any = {name: float(move / scale / spread[history.names.index(name)]) for name, move in shocks.items()}
        sample = np.asarray(vine.sample(n_samples=draws, conditioning=given))
    at = [history.names.index(name) for name in others]
    values = sample[:, at] * spread[at] * scale
    method = (
        f"vine copula given the shocks, {draws} draws, seed {seed}, one-step tails × √({horizon}/{history.step_days})"
    )
    return FatTailed(shocked, others, values, method)

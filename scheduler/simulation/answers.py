"""Draws whether a simulated answer is right and how sure the model seems, for policies that ask again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finllm.scheduler.placement.fleet import Floats


@dataclass(frozen=True)
class Answers:
    """Tasks with a latent difficulty z in [0, 1): a backend of quality q answers right where z < q, so that what the
    edge gets right the deep tier does, too.

    `signal`: how well confidence tells right from wrong: the distance of its two means in standard deviations (1.0 is
    an AUC of 0.76).
    """

    difficulty: Floats
    noise: Floats
    signal: float

    @classmethod
    def drawn(cls, count: int, signal: float, seed: int) -> Answers:
        random = np.random.default_rng(seed)
        return cls(random.random(count), random.standard_normal(count), signal)

    def right(self, task: int, quality: float) -> bool:
        return bool(self.difficulty[task] < quality)

    def confidence(self, task: int, quality: float) -> float:
        """A score whose mean is higher where the answer is right."""
        return float(self.noise[task] + (self.signal if self.right(task, quality) else 0.0))

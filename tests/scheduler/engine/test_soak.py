"""Mixed requests with cancels and preemptions, from any seed: the campaign that `benchmarks.engine.soak` measures."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.engine.soak import play

from tests.scheduler.engine.test_engine import NOISE
from tests.soak import Soak


@pytest.mark.soak
def test_nobody_hears_anothers_text_and_nothing_leaks_from_any_seed(soak: Soak, edge_weights: Path) -> None:
    for seed in soak.rounds(50):
        found = play(edge_weights, 24, seed, NOISE)
        soak.figure(requests=found["requests"], cancelled=found["cancelled"], preemptions=found["preemptions"],
                    near_ties=found["near_ties"])  # fmt: skip
        assert found["answered_once"], found
        assert found["filled_to_capacity"], found
        left = {name: found[name] for name in ("leaked_cells", "leaked_sequences", "crosstalk", "unexplained")}
        assert not any(left.values()), left

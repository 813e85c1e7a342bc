"""The signs of the table of channels against what the factors did, on average, in the episodes that it names."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import yaml

from finllm.tools.channels import channel_table
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.likeness import Moves
from finllm.tools.pnl.sizes import FactorView

EPISODES = yaml.safe_load(Path(__file__).with_name("episodes.yaml").read_text(encoding="utf-8"))
WINDOWS: dict[str, tuple[dt.date, dt.date]] = {name: tuple(days) for name, days in EPISODES["windows"].items()}
DEVIATIONS: dict[str, str] = EPISODES["deviations"]


def signs() -> Iterator[tuple[str, bool]]:
    """Each channel and factor with a history in an episode, and whether the average move has the table's sign."""
    market = MarketStore()
    moves = Moves(FactorView(FactorSet.default(market), market, dt.date(2023, 1, 15)))
    for name, row in channel_table().items():
        for factor, size in row.moves.items():
            seen = [found[factor] for episode in row.episodes if episode in WINDOWS
                    if (found := moves.over(WINDOWS[episode], [factor]))]  # fmt: skip
            if seen:
                yield f"{name} {factor}", mean(seen) * size > 0


def test_every_window_is_of_an_episode_that_the_table_names() -> None:
    assert set(WINDOWS) <= {episode for row in channel_table().values() for episode in row.episodes}


def test_signs_are_borne_out_by_the_episodes_and_each_deviation_is_listed_with_its_reason() -> None:
    found = dict(signs())
    assert len(found) >= 70
    assert {pair for pair, right in found.items() if not right} == set(DEVIATIONS)
    assert sum(found.values()) / len(found) >= 0.8

"""What runs on dated episodes are scored from: a reading of every account, and nothing that came after it."""

import datetime as dt

import pytest
from benchmarks.episodes.accounts import accounts
from benchmarks.run_bands import heeded, kept, key_of, share_heeded, windows

from finllm.tools.pnl.readings import HEEDED


def test_every_account_has_a_reading_whose_probabilities_add_to_one() -> None:
    found = kept()
    assert [key_of(one) for one in (*accounts(), *windows()) if key_of(one) not in found] == []
    for reading in found.values():
        for call in reading["factors"].values():
            assert sum(call["direction"].values()) == pytest.approx(1.0, abs=0.001)


def test_how_often_a_reading_is_heeded_is_told_by_earlier_episodes_alone() -> None:
    days = [one.as_of for one in accounts()]
    assert share_heeded(days[0]) == 0.0  # nobody knows yet
    told = [heeded(day)[1] for day in days]
    assert told == sorted(told)
    assert all(count <= at for at, count in enumerate(told))
    assert heeded(dt.date(2023, 1, 31)) == heeded() == (37, 67)
    assert pytest.approx(share_heeded(), abs=0.005) == HEEDED  # what runs take

"""The broker over real engines that are killed or stopped under load: the campaign of `benchmarks.broker.faults`."""

from __future__ import annotations

import pytest
from benchmarks.broker.faults import live_faults, met

from finllm.settings import Settings
from tests.soak import Soak


@pytest.mark.soak
def test_no_task_is_lost_or_done_twice_whatever_strikes_the_engine(soak: Soak, ladder_home: Settings) -> None:
    for seed in soak.rounds(20):
        faults = live_faults(2, seed, ladder_home)
        soak.figure(faults=len(faults), tasks=sum(fault.tasks for fault in faults),
                    lost=sum(fault.lost for fault in faults), twice=sum(fault.twice for fault in faults))  # fmt: skip
        assert met(faults), faults

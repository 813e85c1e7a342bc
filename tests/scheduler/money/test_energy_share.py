"""Joules of work that goes on side by side: the parts sum to what the counter read, whatever begins and ends when."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finllm.scheduler.money import energy
from finllm.scheduler.money.amount import Amount
from finllm.scheduler.money.energy_share import CpuCounter, NvmlCounter, SharedEnergy, gpu_energy


class Told:
    """A counter that rises as it is told to."""

    def __init__(self) -> None:
        self.waiting = 0.0
        self.told = 0.0

    def rise(self, joules: float) -> None:
        self.waiting += joules
        self.told += joules

    def __call__(self) -> Amount:
        joules, self.waiting = self.waiting, 0.0
        return Amount(joules, "modelled", "as told")


@given(st.lists(st.tuples(st.sampled_from(["begin", "end", "look"]), st.floats(0, 100)), max_size=40))
def test_the_parts_and_the_idle_rest_sum_to_the_counter(events: list[tuple[str, float]]) -> None:
    counter = Told()
    shared = SharedEnergy(counter)
    under_way, ended = list[int](), 0.0
    for what, joules in events:
        counter.rise(joules)
        if what == "begin":
            under_way.append(shared.begin())
        elif what == "end" and under_way:
            ended += shared.end(under_way.pop(0)).value
    ended += shared.end(shared.begin()).value
    going_on = sum(shared.so_far(name).value for name in under_way)
    assert ended + going_on + shared.idle == pytest.approx(counter.told)


def test_work_side_by_side_divides_what_is_spent_meanwhile() -> None:
    counter = Told()
    shared = SharedEnergy(counter)
    first = shared.begin()
    counter.rise(10)
    second = shared.begin()
    counter.rise(6)
    assert shared.end(first) == Amount(13.0, "modelled", "as told")
    counter.rise(2)
    assert shared.end(second).value == 5.0
    with pytest.raises(KeyError):
        shared.end(second)


def test_gpus_are_read_through_their_driver_and_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Driver:
        """Two GPUs, whose counters rise with every reading."""

        def __init__(self, name: str) -> None:
            assert name == "libnvidia-ml.so.1"
            self.reads = 0

        def nvmlInit_v2(self) -> int:  # noqa: N802
            return 0

        def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
            count._obj.value = 2
            return 0

        def nvmlDeviceGetHandleByIndex_v2(self, at: Any, device: Any) -> int:  # noqa: N802
            device._obj.value = at.value + 1
            return 0

        def nvmlDeviceGetTotalEnergyConsumption(self, device: Any, energy: Any) -> int:  # noqa: N802
            self.reads += 1
            energy._obj.value = self.reads * 1000 * device.value
            return 0

    monkeypatch.setattr(ctypes, "CDLL", Driver)
    spent = NvmlCounter()()
    assert spent.provenance == "measured"
    assert spent.value == pytest.approx((3 * 1 + 4 * 2) - (1 * 1 + 2 * 2))
    assert "2 GPU(s)" in spent.basis


def test_without_a_driver_there_is_no_gpu_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(f"no {name}")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert gpu_energy() is None


def test_the_cpus_counter_tells_where_its_joules_come_from() -> None:
    readings = iter([energy.CounterReading({}, 1.0), energy.CounterReading({}, 3.0), energy.CounterReading({}, 3.5)])
    counter = CpuCounter(lambda: next(readings))
    first, second = counter(), counter()
    assert first.provenance == "modelled"
    assert first.value == pytest.approx(4 * second.value)
    measured = iter([energy.CounterReading({"a": 1_000_000}, 0.0), energy.CounterReading({"a": 3_500_000}, 9.0)])
    assert CpuCounter(lambda: next(measured))() == Amount(2.5, "measured", "RAPL, all packages, whatever ran on them")

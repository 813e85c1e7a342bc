"""Divides the joules of a power counter among the work that was under way, so that the parts sum to the whole."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any, Protocol

from finllm.scheduler.money import energy
from finllm.scheduler.money.amount import Amount


class Counter(Protocol):
    """Something that tells what was spent since it was last asked."""

    def __call__(self) -> Amount: ...


class CpuCounter:
    """The CPU's packages where they may be read, else this process's CPU time by the model; see `energy.between`."""

    def __init__(self, read: Callable[[], energy.CounterReading] = energy.read_counters) -> None:
        self._cpu = energy.read_cpu()
        self._read = read
        self._last = read()

    def __call__(self) -> Amount:
        now = self._read()
        spent = energy.between(self._last, now, self._cpu)
        self._last = now
        return spent


class NvmlCounter:
    """All NVIDIA GPUs of this machine, by their drivers' energy counters. Errors: OSError where there are none."""

    def __init__(self) -> None:
        self._nvml: Any = ctypes.CDLL("libnvidia-ml.so.1")
        self._check(self._nvml.nvmlInit_v2())
        count = ctypes.c_uint()
        self._check(self._nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)))
        self._devices = [ctypes.c_void_p() for _ in range(count.value)]
        for at, device in enumerate(self._devices):
            self._check(self._nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(at), ctypes.byref(device)))
        if not self._devices:
            raise OSError("no NVIDIA GPU")
        self._last = self._millijoules()

    def __call__(self) -> Amount:
        now = self._millijoules()
        spent, self._last = (now - self._last) / 1000, now
        return Amount(max(spent, 0.0), "measured", f"NVML, {len(self._devices)} GPU(s), whatever ran on them")

    def _millijoules(self) -> int:
        total = 0
        for device in self._devices:
            one = ctypes.c_ulonglong()
            self._check(self._nvml.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(one)))
            total += one.value
        return total

    @staticmethod
    def _check(status: int) -> None:
        if status != 0:
            raise OSError(f"NVML answers with status {status}")


def gpu_energy() -> SharedEnergy | None:
    """The energy of this machine's NVIDIA GPUs, to be divided; None where it has none or does not tell."""
    try:
        return SharedEnergy(NvmlCounter())
    except (OSError, AttributeError):
        return None


class SharedEnergy:
    """Divides a counter's rise equally among what is under way. Safe for any thread.

    `idle`: what was spent while nothing was; with it, all that `end` gave and what is under way sum to the counter.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._lock = threading.Lock()
        self._shares: dict[int, Amount] = {}
        self._names = 0
        self.idle = 0.0
        counter()

    def begin(self) -> int:
        """Work starts; gives the name to end it by."""
        with self._lock:
            spent = self._settle()
            self._names += 1
            self._shares[self._names] = Amount(0.0, spent.provenance, spent.basis)
            return self._names

    def so_far(self, name: int) -> Amount:
        """The joules of work that goes on."""
        with self._lock:
            self._settle()
            return self._shares[name]

    def end(self, name: int) -> Amount:
        """Work is over: its joules. Errors: KeyError for a name that was ended."""
        with self._lock:
            self._settle()
            return self._shares.pop(name)

    def _settle(self) -> Amount:
        """Divide what was spent since the last change in who is under way; the lock is held."""
        spent = self._counter()
        if not self._shares:
            self.idle += spent.value
        for name, share in self._shares.items():
            self._shares[name] = share + Amount(spent.value / len(self._shares), spent.provenance, spent.basis)
        return spent

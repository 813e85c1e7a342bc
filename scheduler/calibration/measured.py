"""What was measured of each rung on this machine: speed by batch, memory, energy, and quality by agent; one file."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from finllm.errors import InputError
from finllm.files import exclusive, write_atomically
from finllm.scheduler.money.amount import Provenance

BATCHES = (1, 2, 4, 8, 16)
"""Sequences decoded together, at which the decode speed is measured."""
_Z95 = 1.6449
"""Normal quantile of a one-sided bound at 95 %."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Key(_Frozen):
    """What a calibration is true of: it is taken again once any of these changes.

    `card`: digest of how the scores behind the quality were calibrated; empty where they were not.
    """

    backend: str
    weights_sha256: str
    build: str
    cpu: str
    threads: int
    probes: str
    card: str = ""


class DecodeRate(_Frozen):
    """`batch` sequences decoded together: tokens of all of them per second, and J per token."""

    batch: int
    tokens_per_second: float
    joules_per_token: float


class Speed(_Frozen):
    """Measured rates. `memory_bytes`: peak resident memory that the loaded rung adds with its context.

    `energy`: where the joules come from, `energy_basis` in words.
    """

    prefill_tokens_per_second: float
    prefill_joules_per_token: float
    decode: tuple[DecodeRate, ...]
    memory_bytes: int
    energy: Provenance
    energy_basis: str

    def decode_at(self, batch: int) -> DecodeRate:
        """The rate at the smallest measured batch that holds `batch` sequences, else at the largest."""
        return next((rate for rate in self.decode if rate.batch >= batch), self.decode[-1])


class Quality(_Frozen):
    """An agent's probes: mean share of labelled fields that were right, over `items`; `chance`: of a blind guess.

    `lower`: one-sided 95 % bound on the score (Wilson 1927), with each item as one trial.
    """

    score: float
    lower: float
    chance: float
    items: int


class RungCalibration(_Frozen):
    """One rung behind one backend. `seconds`: what taking it cost."""

    key: Key
    model: str
    precision: str
    speed: Speed
    quality: dict[str, Quality]
    taken_at: str
    seconds: float


class _File(_Frozen):
    version: Literal[1] = 1
    rungs: tuple[RungCalibration, ...] = ()


def wilson_lower(score: float, items: int) -> float:
    """Lower end of Wilson's interval (1927) for a share `score` of `items` trials; 0 without trials."""
    return wilson(score, items, _Z95)[0]


def wilson(score: float, items: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's interval (1927) for a share `score` of `items` trials, 95 % on both sides; all of it without trials."""
    if items == 0:
        return 0.0, 1.0
    centre = score + z**2 / (2 * items)
    spread = z * sqrt(score * (1 - score) / items + z**2 / (4 * items**2))
    return max(0.0, (centre - spread) / (1 + z**2 / items)), min(1.0, (centre + spread) / (1 + z**2 / items))


def read_calibrations(path: Path) -> tuple[RungCalibration, ...]:
    """What was measured; nothing where the file is missing, spoilt or of another version: it can be taken again."""
    try:
        return _File.model_validate_json(path.read_bytes()).rungs
    except (OSError, ValidationError):
        return ()


def find(calibrations: Sequence[RungCalibration], key: Key) -> RungCalibration | None:
    """The calibration that is still true under `key`."""
    return next((one for one in calibrations if one.key == key), None)


def keep(path: Path, taken: RungCalibration) -> None:
    """Add a calibration to the file, atomically, in place of the one of the same rung on the same machine.

    Errors: InputError where the file cannot be written.
    """

    def place(key: Key) -> tuple[str, str, str, int]:
        return key.backend, key.weights_sha256, key.cpu, key.threads

    try:
        with exclusive(path.with_name(f".{path.name}.lock")):
            others = [one for one in read_calibrations(path) if place(one.key) != place(taken.key)]
            write_atomically(path, _File(rungs=(*others, taken)).model_dump_json(indent=1))
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r}: {error}", fix="set FINLLM_HOME to a writable folder") from error

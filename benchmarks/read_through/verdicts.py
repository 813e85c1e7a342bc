"""What a factor or a sector should do in a scenario, and whether it does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from finllm.tools.data.yaml_files import read_yaml

EXPECTED = Path(__file__).resolve().parent / "expected.yaml"

Verdict = Literal["right", "wrong sign", "not moved", "too small", "too large"]


class Expected(BaseModel):
    """The nearest real episode of a scenario; lowest and highest move of each factor and sector, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    episode: str
    factors: dict[str, tuple[float, float, str]]
    sectors: dict[str, tuple[float, float, str]]


class _All(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    scenarios: dict[str, Expected]


@dataclass(frozen=True)
class Row:
    """A factor's or a sector's move in a run, None where it has none, beside what it should be."""

    name: str
    move: float | None
    origin: str
    low: float
    high: float
    why: str

    @property
    def signed(self) -> bool:
        """Whether the episode says a sign."""
        return self.high <= 0 or self.low >= 0

    @property
    def verdict(self) -> Verdict:
        """By the range: its sign is that of both its ends, and a range across zero has none."""
        move, low, high = self.move, self.low, self.high
        if move is not None and low <= move <= high:
            return "right"
        if move is None or move == 0:
            return "right" if low <= 0 <= high else "not moved"
        if (low >= 0 and move < 0) or (high <= 0 and move > 0):
            return "wrong sign"
        inner = min(abs(low), abs(high))
        if low < 0 < high:
            return "too large"
        return "too small" if abs(move) < inner else "too large"


def expected() -> dict[str, Expected]:
    """By the name of the scenario's file."""
    found = read_yaml(EXPECTED, _All, "list of expectations", needs="'scenarios' by name", example=str(EXPECTED))
    return found.scenarios

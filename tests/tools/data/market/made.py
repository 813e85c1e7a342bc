"""Price files of the test's own, in the forms of vendors: made-up figures, the same everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

SHARED = Path(__file__).resolve().parents[5] / "shared"
"""Files that stand beside the repository where its makers work; tests that read them skip without them."""


def walk(n: int, seed: int = 0, start: float = 100.0, size: float = 0.01) -> np.ndarray:
    """Prices (n,) of a random walk."""
    return start * np.cumprod(1 + np.random.default_rng(seed).normal(0, size, n))


def days(n: int, first: str = "2023-01-02") -> pd.DatetimeIndex:
    return pd.bdate_range(first, periods=n)


def series(n: int, first: str = "2023-01-02", **how: float) -> pd.Series:
    return pd.Series(walk(n, **how), index=days(n, first))  # type: ignore[arg-type]


def write(path: Path, header: str, rows: Iterable[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def column(path: Path, values: pd.Series, name: str, date: str = "date") -> Path:
    """A file of one column, its days in ISO form."""
    return write(path, f"{date},{name}", (f"{str(day)[:10]},{value:.4f}" for day, value in values.items()))

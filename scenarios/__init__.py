"""Scripted scenarios and example portfolios: data files, and where they lie."""

from pathlib import Path

SCENARIOS_DIR = Path(__file__).resolve().parent
PORTFOLIOS_DIR = SCENARIOS_DIR / "portfolios"

__all__ = ["PORTFOLIOS_DIR", "SCENARIOS_DIR"]

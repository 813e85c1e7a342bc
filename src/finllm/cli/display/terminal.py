"""stdout and stderr: consoles and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 120
"""Columns of a table that is not shown on a terminal."""
LISTED_WIDTH = 80
"""Columns of a list that is not shown on a terminal."""


def out_console(piped_width: int = PIPED_WIDTH) -> Console:
    """stdout: colours on a terminal; plain text of a fixed width in a pipe."""
    return _console(stderr=False, piped_width=piped_width)


def err_console() -> Console:
    return _console(stderr=True)


def _console(*, stderr: bool, piped_width: int = PIPED_WIDTH) -> Console:
    from rich.console import Console

    width = None if (sys.stderr if stderr else sys.stdout).isatty() else piped_width
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


def print_json(value: Mapping[str, Any], indent: int | None = 2) -> None:
    """One JSON object on stdout, ASCII only, so that it holds no control character and suits any encoding."""
    print(json.dumps(value, indent=indent, allow_nan=False))

"""Turns whatever a command raised into the message that a person reads, or `--json` prints, and the exit code."""

from __future__ import annotations

import os
import sys
import traceback

from finllm.cli.display.terminal import print_json
from finllm.errors import FinllmError, InputError, as_finllm_error
from finllm.plain_text import clean, clean_lines


def report_failure(error: BaseException, *, as_json: bool) -> int:
    """Print an error — as JSON on stdout, or on stderr — and return its exit code."""
    known = _as_finllm_error(error)
    if _debugging():
        traceback.print_exception(error)
    if as_json:
        print_json(known.to_json())
    else:
        print(f"error: {clean_lines(known.message)}\n  fix: {clean_lines(known.fix)}", file=sys.stderr)
    return known.exit_code


def _as_finllm_error(error: BaseException) -> FinllmError:
    """The error itself, or the one that stands for it; wrong usage is bad input."""
    say = getattr(error, "format_message", None)  # of typer's click, whose module depends on typer's version
    if say is None:
        return as_finllm_error(error)
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "finllm"
    return InputError(clean(say()).rstrip("."), fix=f"see '{command} --help'")


def _debugging() -> bool:
    return os.environ.get("FINLLM_DEBUG", "") not in ("", "0")

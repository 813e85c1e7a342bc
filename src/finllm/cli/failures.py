"""From whatever a command raised to what a person reads, or `--json` prints, and the exit code."""

from __future__ import annotations

import os
import sys
import traceback

from finllm.cli.display.terminal import print_json
from finllm.errors import Cancelled, FinllmError, InputError
from finllm.plain_text import clean, clean_lines


class _Unexpected(FinllmError):
    kind = "internal"


def report_failure(error: BaseException, *, as_json: bool) -> int:
    """Print an error — as JSON on stdout, or on stderr — and return its exit code."""
    known = as_finllm_error(error)
    if _debugging():
        traceback.print_exception(error)
    if as_json:
        print_json(known.to_json())
    else:
        print(f"error: {clean_lines(known.message)}\n  fix: {clean_lines(known.fix)}", file=sys.stderr)
    return known.exit_code


def as_finllm_error(error: BaseException) -> FinllmError:
    """The error itself, or the one that stands for it: wrong usage, an interrupt, or something unforeseen."""
    if isinstance(error, FinllmError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Cancelled("interrupted", fix="run the command again")
    say = getattr(error, "format_message", None)  # of typer's click, whose module depends on typer's version
    if say is not None:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "finllm"
        return InputError(clean(say()).rstrip("."), fix=f"see '{command} --help'")
    what = clean(f"{type(error).__name__}: {error}")
    notes = getattr(error, "__notes__", ())
    if isinstance(error, OSError):
        refusal = f"the operating system refused: {clean(str(error))}"
        return FinllmError(refusal, fix="; ".join(["mend that and run the command again", *notes]))
    mends = ["run it again with FINLLM_DEBUG=1 set, and report the traceback that it prints", *notes]
    return _Unexpected(f"finllm failed unexpectedly: {what}", fix="; ".join(mends))


def _debugging() -> bool:
    return os.environ.get("FINLLM_DEBUG", "") not in ("", "0")

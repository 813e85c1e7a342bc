"""Turns whatever a command raised into the message that a person reads, or `--json` prints, and the exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Generator

from finllm.cli.display.streams import READER_LEFT, lost_output
from finllm.cli.display.terminal import print_json
from finllm.errors import FinllmError, InputError, as_finllm_error
from finllm.plain_text import clean, clean_lines


class AfterOutput(Exception):
    """Around what failed, its cause, once stdout had the one object of `--json`: it is told in words alone."""


def report_failure(error: BaseException, *, as_json: bool) -> int:
    """Print an error — as JSON on stdout, or on stderr — and return its exit code.

    What stdout does not take goes to stderr; what that does not take either is lost, as nobody is left to be told.
    """
    if isinstance(error, AfterOutput) and error.__cause__ is not None:
        error, as_json = error.__cause__, False
    lost = lost_output(error)
    if isinstance(lost, BrokenPipeError):
        return READER_LEFT
    known = _as_finllm_error(error) if lost is None else _unwritten(lost)
    if _debugging():
        with _may_be_lost():
            traceback.print_exception(error)
    if as_json and lost is None:
        with _may_be_lost():
            print_json(known.to_json())
            sys.stdout.flush()
            return known.exit_code
    with _may_be_lost():
        print(f"error: {clean_lines(known.message)}\n  fix: {clean_lines(known.fix)}", file=sys.stderr, flush=True)
    return known.exit_code


@contextlib.contextmanager
def _may_be_lost() -> Generator[None]:
    try:
        yield
    except OSError as error:
        if lost_output(error) is None:
            raise


def _as_finllm_error(error: BaseException) -> FinllmError:
    """The error itself, or the one that stands for it; wrong usage is bad input."""
    say = getattr(error, "format_message", None)  # of typer's click, whose module depends on typer's version
    if say is None:
        return as_finllm_error(error)
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "finllm"
    return InputError(clean(say()).rstrip("."), fix=f"see '{command} --help'")


def _unwritten(lost: OSError) -> FinllmError:
    return FinllmError(f"cannot write to {lost.filename}: {lost.strerror}",
                       fix="free space where it goes, or send it elsewhere, and run the command again")  # fmt: skip


def _debugging() -> bool:
    return os.environ.get("FINLLM_DEBUG", "") not in ("", "0")

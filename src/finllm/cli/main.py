"""The `finllm` command: its subcommands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from finllm.cli.commands import CommandGroup
from finllm.cli.display.terminal import tolerate_narrow_encodings
from finllm.cli.failures import report_failure
from finllm.cli.options import examples, help_if_alone
from finllm.errors import FinllmError

app = typer.Typer(
    name="finllm",
    cls=CommandGroup,
    help="Tell what an event would do to a portfolio, show why, and prove afterwards how the answer came about.",
    epilog=examples(
        "finllm run hormuz-blockade",
        "finllm run my.yaml --portfolio book.csv --as-of 2022-06-30 --out report --json",
        'finllm read "The central bank raises rates by a full point"',
        "finllm doctor",
    ),
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from finllm import __version__

        print(f"finllm {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    del version
    help_if_alone(context)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; its exit code: 0 ok, 1 failed, 2 bad input, 3 as `--fail-on` asks, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    tolerate_narrow_encodings()
    _hush_libraries()
    _share_the_cores()
    _collect_seldom()
    try:
        code = get_command(app).main(arguments, prog_name="finllm", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what reads stdout has left; so may we
        return 1
    except FinllmError as error:
        return report_failure(error, as_json=as_json)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  the last place to turn it into a message
        return report_failure(error, as_json=as_json)
    if code == 130:  # typer's way to say that a Ctrl-C came through
        return report_failure(KeyboardInterrupt(), as_json=as_json)
    return code or 0


def _share_the_cores() -> None:
    """Let llama.cpp's threads spin only briefly for each other: on a busy machine spinning costs most of the speed."""
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # read when the OpenMP runtime is loaded, which is later


def _collect_seldom() -> None:
    """Let garbage wait for 100,000 new objects, and for the process's end: a tenth of a quick command was collecting.

    What a command makes as it starts, modules above all, is kept; every collection would go over it again.
    """
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)


def _hush_libraries() -> None:
    """Keep other packages' warnings and log lines off stderr, which is for talk about the run."""
    if not sys.warnoptions and not os.environ.get("FINLLM_DEBUG"):
        warnings.simplefilter("ignore")
        logging.lastResort = None


if __name__ == "__main__":
    sys.exit(main())

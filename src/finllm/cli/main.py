"""The `finllm` command: the one place where errors and signals become messages and exit codes."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Sequence

from finllm.interrupts import Interrupts, undisturbed

INTERRUPTED = 130
"""Exit code of what SIGINT stopped; typer returns it too where a Ctrl-C came through."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; its exit code.

    0 ok, 1 failed, 2 bad input, 3 as `--fail-on` asks, 129, 130 or 143 interrupted by SIGHUP, SIGINT or SIGTERM, 141
    where what reads its output left before the end.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    with Interrupts(to_the_end=argv is None) as interrupts:  # first: imports take longest in a quick command
        try:
            code = _ran(arguments)
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001  here they turn into messages
            with undisturbed(dropped=True):
                code = _failed(error, as_json="--json" in arguments)
        return interrupts.exit_code(code)


def _ran(arguments: Sequence[str]) -> int:
    _share_the_cores()
    _house_libraries()
    _collect_seldom()
    from finllm.cli.display.streams import open_streams

    open_streams()
    from typer.main import get_command

    from finllm.cli.app import app

    _hush_libraries()
    code = get_command(app).main(arguments, prog_name="finllm", standalone_mode=False)
    sys.stdout.flush()
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return code or 0


def _failed(error: BaseException, *, as_json: bool) -> int:
    from finllm.cli.failures import report_failure

    return report_failure(error, as_json=as_json)


def _share_the_cores() -> None:
    """Let llama.cpp's threads spin only briefly for each other: on a busy machine spinning costs most of the speed."""
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # read when the OpenMP runtime is loaded, which is later


def _house_libraries() -> None:
    """Let libraries that look for the user's home as they are imported find finllm's, where the user has none."""
    home = os.environ.get("FINLLM_HOME", "~")
    if os.path.expanduser("~") == "~" and not home.startswith("~"):
        os.environ["HOME"] = os.path.abspath(home)


def _collect_seldom() -> None:
    """Let garbage wait for 100,000 new objects, and for the process's end: a tenth of a quick command was collecting.

    What a command makes as it starts, modules above all, is kept; every collection would go over it again.
    """
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)


def _hush_libraries() -> None:
    """Keep other packages' warnings and log lines off stderr, which is for talk about the run."""
    import logging
    import warnings

    if not sys.warnoptions and not os.environ.get("FINLLM_DEBUG"):
        warnings.simplefilter("ignore")
        logging.lastResort = None


if __name__ == "__main__":
    sys.exit(main())

"""stdout that is closed, full, or read by nobody any more: no traceback, and an exit code that tells."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = ("--help", "run --help", "data", "runs list", "runs list --json", "models list", "nodes", "config show",
            "stress --shock EQUITY_US=-10%", "stress --shock EQUITY_US=-10% --json")  # fmt: skip
"""What prints by click, by rich, as text and as JSON; each would end with 0."""


def shell(line: str, home: Path) -> tuple[str, str]:
    """stdout and stderr of a line of bash in which `finllm` is the command."""
    script = f'finllm() {{ "{sys.executable}" -m finllm.cli.main "$@"; }}; {line}'
    child = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=300, check=False,
                           env=os.environ | {"FINLLM_HOME": str(home)})  # fmt: skip
    return child.stdout, child.stderr


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("reader", ["head -n 1", "true"])
def test_a_reader_that_leaves_early_hears_no_complaint(command: str, reader: str, tmp_path: Path) -> None:
    out, err = shell(f"finllm {command} | {reader} > /dev/null; echo ${{PIPESTATUS[0]}}", tmp_path / "home")
    assert (out in {"141\n", "0\n"}, err) == (True, "")


def test_a_reader_of_both_streams_may_leave_too(tmp_path: Path) -> None:
    out, err = shell("finllm stress --nonsense 2>&1 | true; echo ${PIPESTATUS[0]}", tmp_path / "home")
    assert (out in {"141\n", "2\n"}, err) == (True, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_stdout_that_was_closed_is_what_the_caller_asked_for(command: str, tmp_path: Path) -> None:
    assert shell(f"(finllm {command} >&-); echo $?", tmp_path / "home") == ("0\n", "")


def test_with_all_three_closed_the_next_file_opened_is_none_of_them(tmp_path: Path) -> None:
    files = tmp_path / "files"
    line = f"(finllm stress --shock EQUITY_US=-10% --out {files} <&- >&- 2>&-); echo $?; ls {files}"
    out, _ = shell(line, tmp_path / "home")
    assert out.startswith("0\n")
    assert "result.json" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_stdout_is_an_error_that_says_so(command: str, tmp_path: Path) -> None:
    out, err = shell(f"finllm {command} > /dev/full; echo $?", tmp_path / "home")
    told = "error: cannot write to stdout: No space left on device\n  fix: free space where it goes, or send it " \
           "elsewhere, and run the command again\n"  # fmt: skip
    assert (out, err) == ("1\n", told)


def test_an_error_that_a_full_stdout_does_not_take_is_told_on_stderr(tmp_path: Path) -> None:
    out, err = shell("finllm stress --nonsense --json > /dev/full; echo $?", tmp_path / "home")
    assert out == "2\n"
    assert err.startswith("error: No such option")


def test_a_full_stderr_changes_no_exit_code(tmp_path: Path) -> None:
    assert shell("finllm stress --nonsense 2> /dev/full; echo $?", tmp_path / "home") == ("2\n", "")

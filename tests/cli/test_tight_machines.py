"""Machines that give little: no home, nothing writable, little memory, few open files. It works, or names a true mend.

Real processes on a tiny model.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import LONGEST_RUN
from tests.graphs.test_kill_and_resume import FINLLM, Whole, judgements, whole

__all__ = ["whole"]
STRANGER = 54_321
"""A user that no list of users knows."""
UNLISTED = ("unshare", "--user", f"--map-user={STRANGER}")
READER = ("setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups", "--inh-caps=-all,+dac_read_search",
          "--ambient-caps=-all,+dac_read_search", "--bounding-set=-all,+dac_read_search")  # fmt: skip
"""Root as a user who may read what root may, and write nothing of it."""
STRESS = ("stress", "--as-of", "2022-06-30", "--shock", "EQUITY_US=-10%")
GIB = 1 << 30


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


def finllm(
    *arguments: str | Path, home: Path | None, under: Sequence[str] = (), limit: tuple[int, int] | None = None,
    cwd: Path | None = None, **changes: Any,
) -> Said:  # fmt: skip
    """Run a command under another, with a limit of resources, and in an environment of which some is changed."""
    own = {"FINLLM_HOME": None if home is None else str(home), "FINLLM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    told = {name: value for name, value in {**os.environ, **own, **changes}.items() if value is not None}

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(limit[0], (limit[1], limit[1]))

    child = subprocess.run([*under, FINLLM, *map(str, arguments)], env=told, capture_output=True, text=True, cwd=cwd,
                           timeout=LONGEST_RUN, check=False, preexec_fn=limited)  # fmt: skip
    return Said(child.returncode, child.stdout, child.stderr)


def may(under: Sequence[str]) -> None:
    """Skip where this user may not become another."""
    if shutil.which(under[0]) is None or subprocess.run([*under, "true"], capture_output=True, check=False).returncode:
        pytest.skip(f"{' '.join(under)} is not allowed here")


def homeless(
    *arguments: str | Path, home: Path | None = None, cwd: Path | None = None, **changes: Any
) -> Said:  # fmt: skip
    may(UNLISTED)
    return finllm(*arguments, home=home, cwd=cwd, under=UNLISTED, HOME=None, **changes)


@pytest.fixture
def tiny(whole: Whole) -> dict[str, str]:
    return {"FINLLM_MODEL": str(whole.home / "tiny.gguf"), "FINLLM_CONTEXT": "32768"}


def test_a_user_without_a_home_is_told_to_set_one() -> None:
    for command in (("runs", "list"), ("config", "show"), STRESS):
        said = homeless(*command)
        assert (said.code, said.out) == (2, "")
        assert f"HOME is not set, and the system knows no home of user {STRANGER}" in said.err
        assert "fix: set FINLLM_HOME to a folder" in said.err


def test_doctor_tells_a_user_without_a_home_so(tmp_path: Path) -> None:
    said = homeless("doctor", "--json", cwd=tmp_path)
    assert not list(tmp_path.iterdir())
    found = {row["name"]: row for row in json.loads(said.out)["checks"]}
    assert said.code == 1
    assert found["settings"]["fix"] == "set FINLLM_HOME to a folder"


@pytest.mark.slow
def test_with_finllm_home_a_user_without_a_home_runs(whole: Whole, tiny: dict[str, Any], tmp_path: Path) -> None:
    said = homeless("run", whole.scenario, "--json", home=tmp_path / "home", **tiny)
    assert said.code == 0, said.err[-1000:]
    assert judgements(json.loads(said.out)) == judgements(whole.report)
    assert homeless(*STRESS, "--out", tmp_path / "out", home=tmp_path / "home").code == 0


def reader(home: Path) -> Sequence[str]:
    """Whatever makes the home unwritable to the command."""
    if os.geteuid() == 0:
        may(READER)
        return READER
    home.chmod(0o500)
    return ()


READS = [("runs", "list"), ("config", "show"), ("scenarios", "list"), ("models", "list"), ("nodes",), ("data",), STRESS]


@pytest.mark.parametrize("command", READS, ids=" ".join)
def test_who_may_write_nothing_can_read_and_compute(command: Sequence[str], tmp_path: Path) -> None:
    """In a folder that is read-only too, with the package's own files read-only."""
    (home := tmp_path / "home").mkdir()
    under = reader(home)
    said = finllm(*command, home=home, under=under, cwd=tmp_path)
    assert (said.code, said.err) == (0, "")
    assert not list(home.iterdir())


def test_who_may_write_nothing_is_told_to_name_a_folder_that_he_may_write(whole: Whole, tmp_path: Path) -> None:
    (home := tmp_path / "home").mkdir()
    under = reader(home)
    for command in (("run", str(whole.scenario)), ("calibrate",)):
        said = finllm(*command, home=home, under=under)
        assert said.code != 0
        assert "cannot be written" in said.err
        assert "give FINLLM_HOME a folder that you may write to" in said.err


def test_without_address_space_for_the_charts_a_result_stands_without_them_and_says_so(tmp_path: Path) -> None:
    said = finllm(*STRESS, "--out", tmp_path / "out", home=tmp_path / "home", limit=(resource.RLIMIT_AS, 5 * GIB))
    told = "drawing reserves 64 GiB of address space, and 'ulimit -v' allows 5.0 GiB; raise that limit"
    assert said.code == 0
    assert f"warning: not drawn: waterfall, positions, fan, stress-index: {told}" in said.err
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert page.count("Not drawn: drawing reserves 64 GiB") == 4
    assert not list((tmp_path / "out").glob("*.png"))
    assert (tmp_path / "out" / "result.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "limit", [(resource.RLIMIT_AS, 5 * GIB), (resource.RLIMIT_NOFILE, 64)], ids=["5 GiB", "64 files"]
)
def test_a_run_gets_along_with_little(
    whole: Whole, tiny: dict[str, Any], tmp_path: Path, limit: tuple[int, int]
) -> None:
    said = finllm("run", whole.scenario, "--json", home=tmp_path / "home", limit=limit, **tiny)
    assert said.code == 0, said.err[-1000:]
    assert judgements(json.loads(said.out)) == judgements(whole.report)
    assert ("not drawn" in said.err) is (limit[0] == resource.RLIMIT_AS)


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "mend"), [
    ((resource.RLIMIT_AS, GIB), "'ulimit -v'"),
    ((resource.RLIMIT_NOFILE, 20), "'ulimit -n'"), ((resource.RLIMIT_NOFILE, 10), "'ulimit -n'"),
], ids=["1 GiB", "20 files", "10 files"])  # fmt: skip
def test_a_run_that_gets_too_little_names_the_limit_to_raise(
    whole: Whole, tiny: dict[str, Any], tmp_path: Path, limit: tuple[int, int], mend: str
) -> None:
    said = finllm("run", whole.scenario, "--json", home=tmp_path / "home", limit=limit, **tiny)
    assert said.code == 1
    error = json.loads(said.out)["error"]
    assert error["kind"] != "internal", error
    assert mend in error["fix"]
    assert "Traceback" not in said.err

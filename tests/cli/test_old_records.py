"""Runs on record from before the one engine: listed, told, verified; and a replay says plainly why it will not."""

from __future__ import annotations

import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from finllm.graphs.basis import Standing
from finllm.graphs.report import Report
from finllm.memory.ledger import Ledger
from finllm.settings import Settings

from .conftest import Cli

KEPT = Path(__file__).resolve().parents[1] / "data" / "engine-1"
RUNS = {
    "hormuz-blockade": "20261129-234504-hormuz-closed-for-a-month-dc28",
    "lehman-2008": "20261129-234651-lehman-2008-replayed-f5f3",
}


@pytest.fixture(params=sorted(RUNS))
def old(request: pytest.FixtureRequest, home: Path) -> str:
    """A copy of an old home in use; the id of its run."""
    with tarfile.open(KEPT / f"{request.param}.tar.xz") as packed:
        packed.extractall(home.parent, filter="data")
    (home.parent / request.param).rename(home)
    return RUNS[request.param]


def test_an_old_run_is_listed_and_told(old: str, cli: Cli) -> None:
    listed = cli("runs", "list", "--json")
    assert listed.code == 0
    assert old in listed.out
    told = cli("trace", old)
    assert told.code == 0
    assert "stress-tester" in told.out
    rows = cli("trace", old, "--json")
    assert rows.code == 0
    assert '"kind": "report"' in rows.out


def test_an_old_audit_log_is_intact(old: str, cli: Cli) -> None:
    del old
    said = cli("audit", "verify")
    assert said.code in (0, 4), said.err  # 4: intact, and no witness was asked


def test_an_old_record_says_engine_1(old: str, home: Path) -> None:
    with closing(Ledger(Settings(home=home).ledger_path)) as ledger:
        row = ledger.run(old)
        assert row is not None
        assert row.result is not None
        assert Report.model_validate(row.result).engine == 1
        assert {Standing.model_validate(use.entry.response).engine for use in ledger.uses(old, "inputs")} == {1}


def test_a_replay_of_an_old_run_names_its_engine_and_what_still_works(old: str, cli: Cli) -> None:
    refused = cli("replay", old)
    assert refused.code == 1
    said = " ".join(refused.err.split())
    assert "was made by engine 1" in said
    for works in (f"finllm trace {old}", "finllm audit verify", "finllm diff"):
        assert works in said

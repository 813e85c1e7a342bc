"""Runs on record from before today's engine: listed, told, verified; and a replay says plainly why it will not."""

from __future__ import annotations

import tarfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from finllm.graphs.basis import Standing
from finllm.graphs.report import Report
from finllm.memory.ledger import Ledger
from finllm.settings import Settings

from .conftest import Cli

KEPT = Path(__file__).resolve().parents[1] / "data"
RUNS = {
    (1, "hormuz-blockade"): "20261129-234504-hormuz-closed-for-a-month-dc28",
    (1, "lehman-2008"): "20261129-234651-lehman-2008-replayed-f5f3",
    (2, "hormuz-blockade"): "20261130-033332-hormuz-closed-for-a-month-673a",
    (2, "lehman-2008"): "20261130-033735-lehman-2008-replayed-6660",
    (4, "hormuz-blockade"): "20261130-084618-hormuz-closed-for-a-month-d520",
    (4, "lehman-2008"): "20261130-084935-lehman-2008-replayed-3018",
    (5, "hormuz-blockade"): "20261130-110640-hormuz-closed-for-a-month-eda2",
    (5, "lehman-2008"): "20261130-110730-lehman-2008-replayed-b87f",
}


@dataclass(frozen=True)
class OldRun:
    id: str
    engine: int


@pytest.fixture(params=sorted(RUNS), ids=lambda one: f"engine {one[0]}, {one[1]}")
def old(request: pytest.FixtureRequest, home: Path) -> OldRun:
    """A copy of an old home in use, and its run."""
    engine, name = request.param
    with tarfile.open(KEPT / f"engine-{engine}" / f"{name}.tar.xz") as packed:
        packed.extractall(home.parent, filter="data")
    (home.parent / name).rename(home)
    return OldRun(RUNS[request.param], engine)


def test_an_old_run_is_listed_and_told(old: OldRun, cli: Cli) -> None:
    listed = cli("runs", "list", "--json")
    assert listed.code == 0
    assert old.id in listed.out
    told = cli("trace", old.id)
    assert told.code == 0
    assert "stress-tester" in told.out
    rows = cli("trace", old.id, "--json")
    assert rows.code == 0
    assert '"kind": "report"' in rows.out


def test_an_old_audit_log_is_intact(old: OldRun, cli: Cli) -> None:
    del old
    said = cli("audit", "verify")
    assert said.code in (0, 4), said.err  # 4: intact, and no witness was asked


def test_an_old_record_says_its_engine(old: OldRun, home: Path) -> None:
    with closing(Ledger(Settings(home=home).ledger_path)) as ledger:
        row = ledger.run(old.id)
        assert row is not None
        assert row.result is not None
        assert Report.model_validate(row.result).engine == old.engine
        assert {Standing.model_validate(use.entry.response).engine for use in ledger.uses(old.id, "inputs")} == {
            old.engine
        }


def test_a_replay_of_an_old_run_names_its_engine_and_what_still_works(old: OldRun, cli: Cli) -> None:
    refused = cli("replay", old.id)
    assert refused.code == 1
    said = " ".join(refused.err.split())
    assert f"was made by engine {old.engine}" in said
    for works in (f"finllm trace {old.id}", "finllm audit verify", "finllm diff"):
        assert works in said

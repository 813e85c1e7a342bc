"""Looks at items: each counts at once, is on record in the end, and is not lost with the process that noted it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from finllm.errors import ReviewRefused
from finllm.memory.review_record import ReviewRecord
from finllm.memory.review_rows import AuditRow
from finllm.memory.reviews import Policy, Reviews
from tests.memory.desks import PHRASE, Home, home_at

DIES = """
import os, signal, sys
from pathlib import Path
from tests.memory.desks import home_at
with home_at(Path(sys.argv[1])) as home:
    home.reviews.noted(home.user("rev2"), "r-1")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def by(home: Home, item: str) -> list[str]:
    """Who is on record as having looked."""
    return [look.by for look in ReviewRecord(home.ledger).looks(int(item[2:]))]


def test_a_look_counts_before_it_is_on_record_and_comes_there_once(tmp_path: Path) -> None:
    with home_at(tmp_path) as home:
        item, rev1 = home.put("run-1"), home.user("rev1")
        for _ in range(3):
            home.reviews.noted(rev1, item)
        assert [look.by for look in home.reviews.looks(item, rev1)] == ["rev1"]
        assert by(home, item) == []
        for _ in range(2):
            home.reviews.looking.settle()
        assert by(home, item) == ["rev1"]
        assert [look.by for look in home.reviews.looks(item, rev1)] == ["rev1"]


def test_a_look_is_not_lost_with_a_process_killed_right_after_it(tmp_path: Path) -> None:
    with home_at(tmp_path) as home:
        item = home.put("run-1")
    killed = subprocess.run([sys.executable, "-c", DIES, str(tmp_path)], check=False)
    assert killed.returncode == -9
    with home_at(tmp_path) as home:
        assert by(home, item) == ["rev2"]


def test_who_looked_a_moment_ago_does_not_audit_that_item_blind(tmp_path: Path) -> None:
    with home_at(tmp_path, Policy(audit_every=0)) as home:
        first = home.put("run-1")
        home.reviews.sign(first, home.user("rev1"), PHRASE, "fine")
        row = home.reviews.record.get(first).row
        audit = row.model_copy(update={"number": 2, "who": "finllm", "needs": 1,
                                       "audit": AuditRow(kind="drawn", of=1)})  # fmt: skip
        home.reviews.noted(home.user("rev2"), first)
        assert home.reviews.record.put(audit)
        with pytest.raises(ReviewRefused, match="has seen the verdict"):
            home.reviews.sign("r-2", home.user("rev2"), PHRASE, "fine")


def test_an_audit_is_drawn_for_nobody_who_looked_a_moment_ago(tmp_path: Path) -> None:
    with home_at(tmp_path, Policy(audit_every=1)) as home:
        item = home.put("run-1")
        home.reviews.noted(home.user("rev2"), item)
        home.reviews.sign(item, home.user("rev1"), PHRASE, "fine")
        assert "rev2" in home.reviews.record.get("r-2").row.makers


def test_two_servers_put_the_same_look_on_record_once(tmp_path: Path) -> None:
    with home_at(tmp_path) as home:
        item = home.put("run-1")
        second = Reviews(home.ledger, home.users, clock=home.clock)
        home.reviews.noted(home.user("rev1"), item)
        (noted,) = second.looking.of(int(item[2:]))
        home.reviews.looking.settle()
        second.record.look(int(item[2:]), noted)
        assert by(home, item) == ["rev1"]

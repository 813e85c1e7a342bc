"""Blind audits: drawn by the log's root and by nobody, and sealed until the second verdict is in."""

from __future__ import annotations

from pathlib import Path

import pytest

from finllm.errors import ReviewRefused
from finllm.memory.audits import drawn
from finllm.memory.review_record import ReviewRecord
from finllm.memory.reviews import Policy
from tests.memory.desks import home_at
from tests.memory.test_reviews import refused, sign


def test_an_audit_is_drawn_from_every_k_by_the_log_s_root(tmp_path: Path) -> None:
    with home_at(tmp_path, Policy(audit_every=3)) as home:
        ids = [home.put(f"run-{at}") for at in range(7)]
        for id in ids:
            sign(home, id, "rev1")
        audits = [one for one in ReviewRecord(home.ledger).items().values() if one.row.audit]
        assert [one.row.audit.among for one in audits if one.row.audit] == [(1, 2, 3), (4, 5, 6)]
        for one in audits:
            assert one.row.audit is not None
            assert one.row.audit.of == drawn(one.row.audit.root, one.row.audit.among)
            assert len(one.row.audit.root) == 64


def test_a_blind_audit_shows_nothing_of_the_first_verdict_until_the_second_is_in(tmp_path: Path) -> None:
    with home_at(tmp_path, Policy(audit_every=1)) as home:
        first = home.put("run-1")
        sign(home, first, "rev1", "I saw nothing wrong")
        rev1, rev2, risk1 = (home.user(name) for name in ("rev1", "rev2", "risk1"))
        (blind,) = home.reviews.queue(rev2)
        assert blind.blind
        assert blind.why_not is None
        shown = repr(home.reviews.item(blind.id, rev2))
        for hidden in ("rev1", "risk1", "I saw nothing wrong", "drawn", "'r-1'", "of=1"):
            assert hidden not in shown
        with refused("sealed"):
            home.reviews.item(first, rev2)
        assert home.reviews.queue(rev2, ended=True) == []
        assert home.reviews.item(first, risk1).state == "approved", "who made it knows"
        with refused("four-eyes"):
            home.reviews.claim(blind.id, rev1)
        home.reviews.send_back(blind.id, rev2, "sign", "E12 has the other sign")
        assert home.reviews.item(first, rev2).state == "approved"
        assert home.reviews.item(blind.id, rev2).item.row.audit is not None
        assert home.reviews.item(blind.id, rev1).state == "sent back"


def test_who_saw_the_first_verdict_does_not_audit_it(tmp_path: Path) -> None:
    with home_at(tmp_path, Policy(audit_every=1)) as home:
        first, rev2 = home.put("run-1"), home.user("rev2")
        home.reviews.looked(rev2, first)
        sign(home, first, "rev1")
        (audit,) = home.reviews.queue(rev2)
        with pytest.raises(ReviewRefused):
            home.reviews.claim(audit.id, rev2)
        assert home.reviews.item(first, rev2).state == "approved"
        sign(home, audit.id, "rev3")
        assert home.reviews.queue(rev2) == [], "an audit that is signed is not audited again"


def test_what_an_exercise_hides_is_sealed_by_digest_and_revealed_after_the_verdict(tmp_path: Path) -> None:
    with home_at(tmp_path, Policy(audit_every=0)) as home:
        home.put("run-1")
        home.run("run-x")
        row = home.reviews.put_exercise(1, "run-x", "aud1", '{"fault": "sign"}')
        assert row.audit is not None
        for path in tmp_path.rglob("*"):
            if path.is_file() and not path.name.startswith("users.sqlite"):
                assert b'{"fault": "sign"}' not in path.read_bytes().replace(b"\\", b""), path
        shown = repr(home.reviews.item(row.id, home.user("rev2")))
        assert "fault" not in shown
        assert "planted" not in shown
        with refused("four-eyes"):
            home.reviews.claim(row.id, home.user("aud1"))
        home.reviews.send_back(row.id, home.user("rev2"), "sign", "E12 is the other way round")
        events = home.reviews.item(row.id, home.user("rev2")).item.events
        assert (events[-1].what, events[-1].reason) == ("revealed", '{"fault": "sign"}')
        assert ReviewRecord(home.ledger).get(row.id).refused == ()

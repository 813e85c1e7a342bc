"""Reviews: the rules hold for everybody and every way in, a change of bytes voids, and of two at once one wins."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finllm.errors import AccessRefused, FinllmError, InputError, ReviewRefused
from finllm.guardrails.audit.recorder import open_recorder
from finllm.memory.review_record import broken, reviews
from finllm.memory.review_rows import REVIEW, ReviewEvent, ReviewRow
from finllm.memory.review_rules import REVIEWERS, folded, makes, moment_of, refusal
from finllm.memory.reviews import Policy, Reviews
from finllm.memory.secret_file import SecretFile
from finllm.memory.users import User, Users
from finllm.scheduler.placement.task import key_of
from finllm.scheduler.record import Entry
from finllm.settings import Settings
from tests.memory.desks import LIGHT, PHRASE, Home, home_at
from tests.soak import Soak

HAND = [{"kind": "shock", "about": "OIL_WTI", "decided": "+60%", "by": "rev3", "because": "mined"}]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with home_at(tmp_path) as one:
        yield one


def refused(rule: str) -> Any:
    return pytest.raises(ReviewRefused, check=lambda error: error.rule == rule)


def sign(home: Home, id: str, name: str, reason: str = "the rows bear it out") -> str:
    return home.reviews.sign(id, home.user(name), PHRASE, reason).state


def test_a_version_is_put_claimed_signed_and_approved(home: Home) -> None:
    id = home.put("run-1")
    rev1 = home.user("rev1")
    assert home.reviews.item(id, rev1).state == "waiting"
    assert home.reviews.claim(id, rev1).claimed_by == "rev1"
    assert sign(home, id, "rev1") == "approved"
    (signature,) = home.reviews.item(id, rev1).item.signatures
    row = home.reviews.item(id, rev1).item.row
    assert row.report_sha256 in signature.statement
    assert "run run-1" in signature.statement
    assert (row.needs, row.log_size > 0, len(row.log_root)) == (1, True, 64)
    with refused("closed"):
        sign(home, id, "rev2")


@pytest.mark.parametrize("result", [
    {"breaches": ["energy"]}, {"hand": HAND}, {"compliance": "block"},
    {"findings": [{"rule": "restricted", "version": "2", "verdict": "block", "what": "restricted names held: ACME"}]},
])  # fmt: skip
def test_what_is_grave_needs_two_different_people(home: Home, result: dict[str, Any]) -> None:
    id = home.put("run-1", **result)
    assert sign(home, id, "rev1") == "signed"
    with refused("signed"):
        sign(home, id, "rev1")
    assert sign(home, id, "rev2") == "approved"


@pytest.mark.parametrize("who", ["risk1", "rev3", "boss"])
def test_nobody_reviews_what_they_made_edited_or_overrode_admins_included(home: Home, who: str) -> None:
    home.users.role("risk1", "auditor", by="boss")
    id = home.put("run-1", who="boss" if who == "boss" else "risk1", hand=HAND)
    for act in (lambda: home.reviews.claim(id, home.user(who)), lambda: sign(home, id, who),
                lambda: home.reviews.send_back(id, home.user(who), "other", "no"),
                lambda: home.reviews.escalate(id, home.user(who), "no")):  # fmt: skip
        with refused("four-eyes"):
            act()
    assert home.reviews.item(id, home.user("rev1")).item.events == ()


def test_a_maker_is_known_by_the_login_too(home: Home) -> None:
    home.users.add("carol", "reviewer", PHRASE, by="boss", login="c.jones")
    home.run("run-1")
    id = home.reviews.put("s-1", 1, "run-1", who="risk1", login="C.Jones", why="x").id
    with refused("four-eyes"):
        sign(home, id, "carol")


def test_where_there_are_users_nobody_unknown_has_a_hand_in_what_is_reviewed(home: Home) -> None:
    home.run("run-1")
    with refused("unknown"):
        home.reviews.put("s-1", 1, "run-1", who="ghost", why="x")
    home.run("run-2", hand=[{**HAND[0], "by": "ghost"}])
    with refused("unknown"):
        home.reviews.put("s-1", 1, "run-2", who="risk1", why="x")


def test_a_fault_that_is_none_is_refused_with_the_list(home: Home) -> None:
    id = home.put("run-1")
    with refused("reason"):
        home.reviews.send_back(id, home.user("rev1"), "mood", "no")  # type: ignore[arg-type]


def test_only_reviewers_review_and_the_role_is_the_one_on_record_now(home: Home) -> None:
    id = home.put("run-1")
    home.users.add("ann", "analyst", PHRASE, by="boss")
    with refused("role"):
        sign(home, id, "ann")
    forged = User(name="ann", role="admin", login="ann")
    with refused("role"):
        home.reviews.sign(id, forged, PHRASE, "because I say so")
    with pytest.raises(AccessRefused):
        home.reviews.claim(id, User(name="ghost", role="admin", login="ghost"))
    home.users.disable("rev1", by="boss")
    with pytest.raises(AccessRefused):
        home.reviews.claim(id, User(name="rev1", role="reviewer", login="rev1"))


def test_signing_takes_the_signer_s_own_pass_phrase(home: Home) -> None:
    id = home.put("run-1")
    with pytest.raises(AccessRefused, match="another pass phrase"):
        home.reviews.sign(id, home.user("rev1"), "not the phrase at all", "fine")
    assert home.reviews.item(id, home.user("rev1")).item.signatures == ()


@pytest.mark.parametrize("reason", ["", "   ", "\n"])
def test_every_verdict_has_a_reason(home: Home, reason: str) -> None:
    id, rev1 = home.put("run-1"), home.user("rev1")
    for act in (lambda: home.reviews.sign(id, rev1, PHRASE, reason),
                lambda: home.reviews.send_back(id, rev1, "limit", reason),
                lambda: home.reviews.escalate(id, rev1, reason),
                lambda: home.reviews.withdraw(id, home.user("risk1"), reason)):  # fmt: skip
        with refused("reason"):
            act()
    with refused("reason"):
        home.reviews.put("s-2", 1, "run-1", who="risk1", why=reason)


def test_a_claim_keeps_others_out_until_it_expires_and_a_heartbeat_renews_it(home: Home) -> None:
    id, rev1, rev2 = home.put("run-1"), home.user("rev1"), home.user("rev2")
    home.reviews.claim(id, rev1)
    with refused("claimed"):
        home.reviews.claim(id, rev2)
    with refused("claimed"):
        sign(home, id, "rev2")
    rows = len(home.reviews.item(id, rev1).item.events)
    home.reviews.heartbeat(id, rev1)
    assert len(home.reviews.item(id, rev1).item.events) == rows, "a fresh claim is not written again"
    home.clock.now += 1000
    home.reviews.heartbeat(id, rev1)
    home.clock.now += 1000
    assert home.reviews.item(id, rev2).state == "claimed"
    home.clock.now += 1000
    assert home.reviews.item(id, rev2).state == "waiting"
    with refused("claimed"):
        home.reviews.heartbeat(id, rev1)
    home.reviews.claim(id, rev2)
    assert home.reviews.release(id, rev2).state == "waiting"


def test_sent_back_it_returns_to_the_same_reviewer_as_a_new_version(home: Home) -> None:
    first = home.put("run-1", session="s-1")
    assert home.reviews.send_back(first, home.user("rev2"), "override", "beyond its history").state == "sent back"
    home.run("run-2")
    home.put("run-0", session="s-0")
    again = home.reviews.put("s-1", 2, "run-2", who="risk1", why="corrected")
    assert (again.follows, again.back_to) == (1, "rev2")
    assert home.reviews.queue(home.user("rev2"))[0].id == again.id
    assert home.reviews.queue(home.user("rev1"))[0].id != again.id


def test_a_later_version_voids_the_signatures_of_the_one_before(home: Home) -> None:
    first = home.put("run-1", session="s-1", breaches=["x"])
    sign(home, first, "rev1")
    home.run("run-2", breaches=["x"])
    home.reviews.put("s-1", 2, "run-2", who="risk1", why="corrected")
    assert home.reviews.item(first, home.user("rev1")).state == "void"
    with refused("closed"):
        sign(home, first, "rev2")
    with refused("twice"):
        home.reviews.put("s-1", 2, "run-2", who="risk1", why="again")


@pytest.mark.parametrize("approved", [True, False])
def test_changed_bytes_void_an_item_on_record_approved_or_not(tmp_path: Path, approved: bool) -> None:
    with home_at(tmp_path) as home:
        id = home.put("run-1", breaches=["x"])
        sign(home, id, "rev1")
        if approved:
            sign(home, id, "rev2")
        with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
            db.execute("UPDATE run SET result=replace(result, 'run-1', 'run-X') WHERE id='run-1'")
        db.close()
        with refused("closed"):
            sign(home, id, "rev3")
        shown = home.reviews.item(id, home.user("rev3"))
        assert shown.state == "void"
        assert "altered" in shown.item.events[-1].reason


def test_a_signature_is_of_the_bytes_that_were_read(home: Home) -> None:
    id = home.put("run-1")
    with refused("bytes"):
        home.reviews.sign(id, home.user("rev1"), PHRASE, "fine", report_sha256="0" * 64)


def test_what_is_escalated_takes_somebody_senior_who_is_another(home: Home) -> None:
    id = home.put("run-1")
    assert home.reviews.escalate(id, home.user("rev1"), "above my head").state == "escalated"
    with refused("escalated"):
        sign(home, id, "rev2")
    assert sign(home, id, "aud1") == "approved"
    other = home.put("run-2")
    home.reviews.escalate(other, home.user("aud1"), "I know them")
    with refused("escalated"):
        sign(home, other, "aud1")
    with refused("closed"):
        home.reviews.withdraw(other, home.user("risk1"), "never mind")


def test_only_who_put_it_withdraws_it(home: Home) -> None:
    id = home.put("run-1")
    with refused("role"):
        home.reviews.withdraw(id, home.user("boss"), "clean up")
    assert home.reviews.withdraw(id, home.user("risk1"), "wrong book").state == "withdrawn"


def test_every_look_is_on_record_once_as_long_as_nothing_changes(home: Home) -> None:
    id, rev1 = home.put("run-1"), home.user("rev1")
    for _ in range(3):
        home.reviews.looked(rev1, id)
    assert [one.by for one in home.reviews.looks(id, rev1)] == ["rev1"]
    home.reviews.claim(id, home.user("rev2"))
    home.reviews.looked(rev1, id)
    assert [one.by for one in home.reviews.looks(id, rev1)] == ["rev1", "rev1"]


def test_rows_put_past_the_doors_count_for_nothing_and_are_named(home: Home) -> None:
    id = home.put("run-1", hand=HAND)
    digest = home.reviews.item(id, home.user("rev1")).item.row.report_sha256
    for at, (by, role) in enumerate((("risk1", "admin"), ("rev3", "reviewer"), ("rev1", "analyst"))):
        said = {"what": "signed", "by": by, "role": role, "at": moment_of(home.clock()), "reason": "x",
                "report_sha256": digest}  # fmt: skip
        place = {"number": 1, "row": at}
        home.ledger.record(Entry(key_of("review", place), REVIEW, by, place, said), run_id=id,
                           node="review")  # fmt: skip
    item = home.reviews.item(id, home.user("rev1")).item
    assert item.signatures == ()
    assert len(list(broken(home.ledger))) == 3
    assert sign(home, id, "rev1") == "signed"


def test_reviews_are_the_same_after_a_restart(tmp_path: Path) -> None:
    with home_at(tmp_path) as home:
        id = home.put("run-1", breaches=["x"])
        sign(home, id, "rev1")
        home.reviews.looked(home.user("rev2"), id)
        before = home.reviews.item(id, home.user("rev2"))
    with home_at(tmp_path) as home:
        after = home.reviews.item(id, home.user("rev2"))
        assert (after.item, after.state) == (before.item, before.state)
        assert [row.id for row in reviews(home.ledger)] == [id]


def test_an_unknown_item_is_named(home: Home) -> None:
    for id in ("r-9", "x", "", "r--1", "²"):
        with pytest.raises(InputError, match="no review"):
            home.reviews.item(id, home.user("rev1"))


def race(tmp_path: Path, times: int, **result: Any) -> None:
    """Two processes' worth of ledgers on one home; two people sign each of many items in the same instant."""
    with home_at(tmp_path, Policy(audit_every=0)) as home:
        ids = [home.put(f"run-{at}", **result) for at in range(times)]
        other = open_recorder(Settings(home=tmp_path))
        secret = SecretFile(Settings(home=tmp_path).users_path)
        try:
            second = Reviews(other, Users(other, secret, clock=home.clock, hasher=LIGHT), Policy(audit_every=0),
                             clock=home.clock)  # fmt: skip
            desks = {"rev1": home.reviews, "rev2": second}
            said: dict[str, list[str]] = {id: [] for id in ids}
            barrier = threading.Barrier(2, timeout=120)

            def run(name: str, desk: Reviews) -> None:
                user = home.user(name)
                for id in ids:
                    barrier.wait()
                    try:
                        said[id].append(desk.sign(id, user, PHRASE, "read").state)
                    except FinllmError as error:
                        said[id].append(getattr(error, "rule", error.message))

            threads = [threading.Thread(target=run, args=one) for one in desks.items()]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            secret.close()
            other.close()
        wanted = ["approved", "signed"] if result else ["approved", "closed"]
        for id in ids:
            assert sorted(said[id]) == wanted, (id, said[id])
            signatures = home.reviews.item(id, home.user("aud1")).item.signatures
            assert len(signatures) == (2 if result else 1)
        assert list(broken(home.ledger)) == []


def test_of_two_who_sign_in_the_same_instant_one_wins(tmp_path: Path) -> None:
    race(tmp_path, 25)


def test_who_signs_an_instant_late_what_is_drawn_for_an_audit_is_told_that_it_is_sealed(tmp_path: Path) -> None:
    """And nothing of the verdict: the audit may be theirs. Who has read the item is told that it is over."""
    with home_at(tmp_path, Policy(audit_every=1)) as home:
        id, read = home.put("run-1"), home.put("run-2")
        home.reviews.looked(home.user("rev2"), read)
        for one, rule in ((id, "sealed"), (read, "closed")):
            assert sign(home, one, "rev1") == "approved"
            with refused(rule):
                sign(home, one, "rev2")


def test_two_signatures_in_the_same_instant_are_two(tmp_path: Path) -> None:
    race(tmp_path, 25, breaches=["x"])


@pytest.mark.soak
def test_a_thousand_races_lose_and_double_nothing(soak: Soak, tmp_path: Path) -> None:
    for seed in soak.rounds(20):
        (tmp_path / str(seed)).mkdir()
        race(tmp_path / str(seed), 50)


NAMES = ["risk1", "rev1", "rev2", "aud1", "boss"]
EVENTS = st.lists(st.builds(
    ReviewEvent,
    what=st.sampled_from(["claimed", "kept", "released", "signed", "sent back", "escalated", "withdrawn", "void"]),
    by=st.sampled_from([*NAMES, "finllm"]), role=st.sampled_from([None, "risk", "reviewer", "auditor", "admin"]),
    at=st.integers(0, 50).map(lambda at: moment_of(1e9 + at)), about=st.sampled_from([None, "limit"]),
    until=st.integers(0, 90).map(lambda at: moment_of(1e9 + at)), reason=st.sampled_from(["", "x"]),
    report_sha256=st.sampled_from(["d", "e"]),
), max_size=30)  # fmt: skip


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EVENTS, st.integers(1, 3))
def test_whatever_is_on_record_no_approval_breaks_a_rule(events: list[ReviewEvent], needs: int) -> None:
    row = ReviewRow(number=1, session="s", version=1, run="r", report_sha256="d", who="risk1", why="x", at="",
                    needs=needs, makers=("boss",))  # fmt: skip
    item = folded(row, events)
    signers = [one.by for one in item.signatures]
    assert len(signers) == len(set(signers)) <= needs
    for one in item.signatures:
        assert not makes(item, one.names)
        assert one.role in REVIEWERS
        assert one.reason
        assert one.report_sha256 == "d"
    if item.ended == "approved":
        assert len(signers) == needs
    for event in events:
        if event.by in ("risk1", "boss") and event.what not in ("withdrawn", "void"):
            assert refusal(item, event) is not None

"""Users: nobody is there by default, roles and phrases change on record, a wrong phrase locks out, sign-ins end."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from finllm.errors import AccessRefused, InputError
from finllm.memory.secret_file import SecretFile
from finllm.memory.users import FIRST_LOCK, FREE, Users, check_phrase
from finllm.memory.web_sessions import ABSOLUTE, IDLE, WebSessions
from finllm.settings import Settings
from tests.memory.desks import LIGHT, PHRASE, Home, home_at


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with home_at(tmp_path) as one:
        yield one


def test_a_new_home_has_no_user(tmp_path: Path) -> None:
    with home_at(tmp_path, people={}) as home:
        assert home.users.list() == ()
        with pytest.raises(AccessRefused):
            home.users.verify("admin", "admin")


def test_the_right_phrase_opens_and_no_other(home: Home) -> None:
    assert home.users.verify("rev1", PHRASE).role == "reviewer"
    for name, phrase in (("rev1", PHRASE + "x"), ("nobody", PHRASE), ("rev1", ""), ("rev1", "x" * 5000)):
        with pytest.raises(AccessRefused, match="no such user, or another pass phrase"):
            home.users.verify(name, phrase)


def test_wrong_phrases_lock_out_longer_each_time_and_the_right_one_too(home: Home) -> None:
    for _ in range(FREE):
        with pytest.raises(AccessRefused, match="another pass phrase"):
            home.users.verify("rev1", "wrong wrong wrong")
    with pytest.raises(AccessRefused, match="locked out"):
        home.users.verify("rev1", PHRASE)
    home.clock.now += FIRST_LOCK + 1
    with pytest.raises(AccessRefused, match="another pass phrase"):
        home.users.verify("rev1", "wrong wrong wrong")
    home.clock.now += FIRST_LOCK + 1
    with pytest.raises(AccessRefused, match="locked out"):
        home.users.verify("rev1", PHRASE)
    home.clock.now += FIRST_LOCK
    assert home.users.verify("rev1", PHRASE).name == "rev1"
    assert home.users.verify("rev2", PHRASE).name == "rev2"


def test_only_an_admin_changes_users_and_the_last_one_stays(home: Home) -> None:
    with pytest.raises(AccessRefused, match="may not change users"):
        home.users.add("rev9", "admin", PHRASE, by="rev1")
    with pytest.raises(AccessRefused, match="may not change users"):
        home.users.role("rev1", "admin", by="rev1")
    with pytest.raises(AccessRefused, match="last admin"):
        home.users.disable("boss", by="boss")
    with pytest.raises(AccessRefused, match="last admin"):
        home.users.role("boss", "analyst", by="boss")
    assert home.users.role("rev1", "auditor", by="boss").role == "auditor"
    home.users.disable("rev1", by="boss")
    with pytest.raises(AccessRefused):
        home.users.verify("rev1", PHRASE)


@pytest.mark.parametrize("name", ["", "Rev", "finllm", "a b", "../x", "a" * 40, "rev1"])
def test_a_name_that_is_taken_or_none_is_refused(home: Home, name: str) -> None:
    with pytest.raises(InputError):
        home.users.add(name, "reviewer", PHRASE, by="boss")


def test_a_login_is_one_user_s(home: Home) -> None:
    home.users.add("carol", "reviewer", PHRASE, by="boss", login="c.jones")
    assert home.users.of_login("c.jones").name == "carol"
    with pytest.raises(InputError, match="already"):
        home.users.add("c2", "reviewer", PHRASE, by="boss", login="c.jones")
    with pytest.raises(AccessRefused, match="no user of finllm has the login 'nobody'"):
        home.users.of_login("nobody")


@pytest.mark.parametrize("phrase", ["short", "aaaaaaaaaaaaaaaa", "x" * 2000])
def test_a_phrase_that_is_guessed_is_refused(phrase: str) -> None:
    with pytest.raises(InputError):
        check_phrase("rev1", phrase)


def test_a_hash_put_into_the_file_by_hand_opens_nothing(home: Home, tmp_path: Path) -> None:
    forged = LIGHT.hash("my own pass phrase")
    with sqlite3.connect(tmp_path / "users.sqlite") as db:
        db.execute("UPDATE phrase SET encoded=? WHERE name='rev1'", (forged,))
    db.close()
    with pytest.raises(AccessRefused):
        home.users.verify("rev1", "my own pass phrase")


def test_neither_phrase_nor_hash_goes_on_record_and_the_file_is_private(home: Home, tmp_path: Path) -> None:
    home.users.verify("rev1", PHRASE)
    for path in tmp_path.rglob("*"):
        if path.is_file() and not path.name.startswith("users.sqlite"):
            data = path.read_bytes()
            assert PHRASE.encode() not in data, path
            assert b"$argon2id$" not in data, path
    assert (tmp_path / "users.sqlite").stat().st_mode & 0o077 == 0


def test_users_are_the_same_after_a_restart(tmp_path: Path) -> None:
    with home_at(tmp_path) as home:
        home.users.role("rev1", "auditor", by="boss")
        before = home.users.list()
    with home_at(tmp_path) as home:
        assert home.users.list() == before
        assert home.users.verify("rev1", PHRASE).role == "auditor"


def test_a_sign_in_ends_when_idle_too_old_or_ended(home: Home, tmp_path: Path) -> None:
    sessions = WebSessions(home.users, home.secret, clock=home.clock)
    token = sessions.begin(home.user("rev1"))
    found = sessions.find(token)
    assert found is not None
    assert found.name == "rev1"
    assert token.encode() not in (tmp_path / "users.sqlite").read_bytes(), "only a hash is kept"
    assert sessions.find(token + "x") is None
    home.clock.now += IDLE + 1
    assert sessions.find(token) is None
    token = sessions.begin(home.user("rev1"))
    for _ in range(int(ABSOLUTE / (IDLE / 2)) + 1):
        home.clock.now += IDLE / 2
        sessions.find(token)
    assert sessions.find(token) is None, "however busy, it ends"
    first, second = sessions.begin(home.user("rev1")), sessions.begin(home.user("rev1"))
    sessions.revoke_all("rev1")
    assert sessions.find(first) is None
    assert sessions.find(second) is None


@pytest.mark.parametrize("change", ["role", "disable", "phrase"])
def test_every_change_of_a_user_ends_their_sign_ins_on_all_devices(home: Home, change: str) -> None:
    sessions = WebSessions(home.users, home.secret, clock=home.clock)
    tokens = [sessions.begin(home.user("rev1")) for _ in range(3)]
    other = sessions.begin(home.user("rev2"))
    match change:
        case "role":
            home.users.role("rev1", "analyst", by="boss")
        case "disable":
            home.users.disable("rev1", by="boss")
        case _:
            home.users.change_phrase("rev1", "another long pass phrase", by="rev1", old=PHRASE)
            assert home.users.verify("rev1", "another long pass phrase")
            with pytest.raises(AccessRefused):
                home.users.verify("rev1", PHRASE)
    assert [sessions.find(token) for token in tokens] == [None, None, None]
    assert sessions.find(other) is not None


def test_a_reader_of_the_ledger_sees_users_and_changes_none(home: Home, tmp_path: Path) -> None:
    from finllm.guardrails.audit.reading import open_reading

    settings = Settings(home=tmp_path)
    with open_reading(settings) as ledger:
        users = Users(ledger, SecretFile(settings.users_path))
        assert [one.name for one in users.list()] == [one.name for one in home.users.list()]

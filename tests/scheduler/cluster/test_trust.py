"""Who is believed in a cluster: real handshakes over real sockets, each refusal on record with why."""

from __future__ import annotations

import datetime as dt
import stat
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from finllm.errors import BackendError, InputError
from finllm.scheduler.cluster import Refused
from finllm.scheduler.cluster.authority import Authority, Token
from finllm.scheduler.cluster.certificates import new_key, request_for
from finllm.scheduler.cluster.door import Door, handshake
from finllm.scheduler.cluster.knock import asked_ca, fetch, knock
from finllm.scheduler.cluster.place import Place, utc_now
from finllm.scheduler.cluster.signed import Signer, opened

HERE = "127.0.0.1"
Record = list[tuple[str, dict[str, Any]]]


class Town:
    """An authority, and nodes that it vouches for, each with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.record, self.now = folder, Record(), utc_now()
        self.authority = Authority.make(Place(folder / "first"), "test", self.told, lambda: self.now)

    def told(self, what: str, about: Mapping[str, Any]) -> None:
        self.record.append((what, dict(about)))

    def refusals(self) -> list[str]:
        return [about["why"] for what, about in self.record if what == "cluster.refused"]

    def comes_to_record(self, words: str) -> bool:
        """Whether a refusal with these words is on record, or will be once the door's thread is through."""
        ends = time.monotonic() + 10
        while time.monotonic() < ends and not any(words in why for why in self.refusals()):
            time.sleep(0.01)
        return any(words in why for why in self.refusals())

    def node(self, name: str, life: dt.timedelta = dt.timedelta(hours=1)) -> Place:
        place, key = Place(self.folder / name), new_key()
        token = self.authority.token(f"{HERE}:1")
        certificate = self.authority.join(token.secret, request_for(name, [HERE], key), life)
        place.keep(key, certificate, self.authority.ca_pem, self.authority.crl)
        return place


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path)


@pytest.fixture
def door(town: Town) -> Iterator[Door]:
    place = town.node("server")
    place.crl_path.unlink()
    place.crl_path.symlink_to(town.folder / "first" / "revoked.crl")  # as the authority's own node has it
    opened_door = Door(place, {"/who": lambda holder, _: {"name": holder.name if holder else "?"}}, town.told, HERE)
    yield opened_door
    opened_door.close()


def test_a_node_that_was_vouched_for_is_let_in_by_name(town: Town, door: Door) -> None:
    assert knock(town.node("one"), f"{HERE}:{door.port}", "/who", {}) == {"name": "one"}
    assert town.refusals() == []


def test_a_certificate_of_another_authority_is_refused_in_the_handshake(town: Town, door: Door, tmp_path: Path) -> None:
    stranger = Town(tmp_path / "other").node("one")
    stranger.ca_path.write_bytes(town.authority.ca_pem)  # it believes the door, but the door does not believe it
    stranger.crl_path.write_bytes(town.authority.crl)
    with pytest.raises(BackendError):
        knock(stranger, f"{HERE}:{door.port}", "/who", {})
    assert town.comes_to_record("handshake: ")


def test_a_caller_without_a_certificate_is_refused_in_the_handshake(town: Town, door: Door) -> None:
    place = town.node("one")
    place.certificate_path.unlink()
    with pytest.raises(BackendError):
        knock(place, f"{HERE}:{door.port}", "/who", {})
    assert town.comes_to_record("peer did not return a certificate")


def test_an_expired_certificate_is_refused_in_the_handshake(town: Town, door: Door) -> None:
    with pytest.raises(BackendError):
        knock(town.node("one", dt.timedelta(seconds=-1)), f"{HERE}:{door.port}", "/who", {})
    assert town.comes_to_record("expired")


def test_a_revoked_certificate_is_refused_in_the_handshake(town: Town, door: Door) -> None:
    place = town.node("one")
    assert knock(place, f"{HERE}:{door.port}", "/who", {}) == {"name": "one"}
    town.authority.revoke("one", "its disk was stolen")
    with pytest.raises(BackendError):
        knock(place, f"{HERE}:{door.port}", "/who", {})
    assert town.comes_to_record("revoked")
    assert ("cluster.revoked", "its disk was stolen") in [(what, about.get("why")) for what, about in town.record]


def test_a_door_of_another_authority_is_not_told_anything(town: Town, door: Door, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="handshake"):
        knock(Town(tmp_path / "other").node("one"), f"{HERE}:{door.port}", "/who", {})


def test_a_handshake_tells_at_once_whether_the_other_side_is_there_and_believed(
    town: Town, door: Door, tmp_path: Path
) -> None:
    handshake(town.node("one"), HERE, door.port)
    with pytest.raises(Refused, match="handshake"):
        handshake(Town(tmp_path / "other").node("one"), HERE, door.port)
    door.close()
    with pytest.raises(BackendError, match="does not answer"):
        handshake(town.node("two"), HERE, door.port)


def test_an_authority_is_known_by_the_tokens_digest(town: Town) -> None:
    place = Place(town.folder / "first")
    key = new_key()
    certificate = town.authority.join(town.authority.token("x:1").secret, request_for("first", [HERE], key))
    place.keep(key, certificate, town.authority.ca_pem, town.authority.crl)
    first = Door(place, {"/ca": lambda *_: {"ca": town.authority.ca_pem.decode()}}, town.told, HERE, mutual=False)
    try:
        token = Token.read(town.authority.token(f"{HERE}:{first.port}").text())
        assert asked_ca(token.address, token.ca) == town.authority.ca_pem
        with pytest.raises(Refused, match="another authority"):
            asked_ca(token.address, "0" * 64)
    finally:
        first.close()


def test_a_token_lets_one_node_in_however_many_come_at_once(town: Town) -> None:
    token = town.authority.token(f"{HERE}:1")

    def come(at: int) -> str:
        try:
            return town.authority.join(token.secret, request_for(f"node-{at}", [HERE], new_key())).decode()
        except Refused as error:
            return error.message

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(come, range(8)))
    assert sum(one.startswith("-----BEGIN CERTIFICATE") for one in said) == 1
    assert len(town.refusals()) == 7
    assert all("used before" in why for why in town.refusals())


@pytest.mark.parametrize(("secret", "later", "why"), [
    ("good", dt.timedelta(hours=2), "expired"), ("forged", dt.timedelta(0), "none of this cluster's"),
])  # fmt: skip
def test_an_expired_or_forged_token_is_refused_and_on_record(
    town: Town, secret: str, later: dt.timedelta, why: str
) -> None:
    token = town.authority.token(f"{HERE}:1")
    town.now += later
    with pytest.raises(Refused, match=why):
        town.authority.join(token.secret if secret == "good" else secret, request_for("one", [HERE], new_key()))
    assert any(why in one for one in town.refusals())


def test_a_name_that_is_taken_is_not_vouched_for_again(town: Town) -> None:
    town.node("one")
    with pytest.raises(Refused, match="there is a node 'one' already"):
        town.node("one")
    town.authority.revoke("one", "left")
    town.node("one")


def test_a_node_renews_its_own_certificate_and_no_others(town: Town) -> None:
    town.node("one")
    assert town.authority.renew("one", request_for("one", [HERE], new_key())).startswith(b"-----BEGIN")
    with pytest.raises(Refused, match="asked for a certificate of 'two'"):
        town.authority.renew("one", request_for("two", [HERE], new_key()))


def test_the_authoritys_key_is_its_owners_alone(town: Town) -> None:
    path = town.folder / "first" / "ca.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(InputError, match="can be read by others"):
        Authority(Place(town.folder / "first"), town.told)


def test_a_statement_is_believed_only_from_whom_it_names(town: Town) -> None:
    one, two = town.node("one"), town.node("two")
    good = Signer(one.key(), one.certificate_path.read_bytes()).sign("answer", {"text": "up"})
    holder, said = opened(good, "answer", two)
    assert (holder.name, said) == ("one", {"text": "up"})
    for forged, why in (
        (good.replace(b"up", b"no"), "not signed"),
        (Signer(two.key(), one.certificate_path.read_bytes()).sign("answer", {"text": "up"}), "not signed"),
        (b"{}", "cannot be read"),
    ):
        with pytest.raises(Refused, match=why):
            opened(forged, "answer", two)
    with pytest.raises(Refused, match="not signed"):
        opened(good, "offers", two)
    town.authority.revoke("one", "lost")
    two.learn_revoked(town.authority.crl)
    with pytest.raises(Refused, match="revoked"):
        opened(good, "answer", two)


def test_fetched_weights_are_those_of_the_digest_or_refused(town: Town, tmp_path: Path) -> None:
    from finllm.files import sha256_of_file

    weights = tmp_path / "weights"
    weights.write_bytes(b"w" * 3_000_000)
    place = town.node("server")
    server = Door(place, {"/weights": lambda *_: weights}, town.told, HERE)
    try:
        digest, to, one = sha256_of_file(weights), tmp_path / "got" / "weights", town.node("one")
        fetch(one, f"{HERE}:{server.port}", digest, to)
        assert to.read_bytes() == weights.read_bytes()
        with pytest.raises(Refused, match="other weights"):
            fetch(one, f"{HERE}:{server.port}", "0" * 64, tmp_path / "bad")
        assert not (tmp_path / "bad").exists()
    finally:
        server.close()

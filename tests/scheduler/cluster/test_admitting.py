"""A node gets no work before it has shown that it holds the weights, byte for byte, and runs the same build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finllm.files import sha256_of_file
from finllm.scheduler.cluster import Refused
from finllm.scheduler.cluster.admitting import Admitting, proof_of
from finllm.scheduler.cluster.certificates import Holder
from finllm.scheduler.cluster.signed import opened
from tests.scheduler.cluster.test_trust import Town


class Hall:
    """The authority's side with one file of weights, and a node that was vouched for."""

    def __init__(self, folder: Path) -> None:
        self.town = Town(folder)
        self.weights = folder / "weights"
        self.weights.write_bytes(b"the weights")
        self.digest = sha256_of_file(self.weights)
        self.admitting = Admitting(self.town.authority, lambda: {self.digest: self.weights}, "build 1", dict)
        self.place = self.town.node("one")
        self.holder: Holder = self.place.holder(self.place.certificate_path.read_bytes())

    def prove(self, **changes: Any) -> dict[str, Any]:
        routes = self.admitting.routes()
        nonce = str(dict(routes["/challenge"](self.holder, {}))["nonce"])  # pyright: ignore
        said = {"nonce": nonce, "build": "build 1", "servers": [],
                "proofs": {self.digest: proof_of(nonce, self.weights)}} | changes  # fmt: skip
        return dict(routes["/prove"](self.holder, said))  # pyright: ignore


@pytest.fixture
def hall(tmp_path: Path) -> Hall:
    return Hall(tmp_path)


def test_a_node_with_the_weights_is_admitted_by_a_signed_word(hall: Hall) -> None:
    authority, word = opened(hall.prove()["admission"].encode(), "admission", hall.place)
    assert hall.place.by_authority(authority)
    assert (word["node"], word["weights"], word["build"]) == ("one", [hall.digest], "build 1")
    assert "cluster.admitted" in [what for what, _ in hall.town.record]


@pytest.mark.parametrize(("changes", "why"), [
    ({"build": "build 2"}, "here it is 'build 1'"),
    ({"proofs": {"0" * 64: "x"}}, "weights that nobody here knows"),
    ({"nonce": "its own"}, "a proof that was not asked for"),
])  # fmt: skip
def test_another_build_unknown_weights_or_a_replayed_proof_is_refused_and_on_record(
    hall: Hall, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        hall.prove(**changes)
    assert hall.town.comes_to_record(why)


def test_knowing_the_digest_is_no_proof_of_the_weights(hall: Hall, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"other weights")
    routes = hall.admitting.routes()
    nonce = str(dict(routes["/challenge"](hall.holder, {}))["nonce"])  # pyright: ignore
    forged = {"nonce": nonce, "build": "build 1", "servers": [], "proofs": {hall.digest: proof_of(nonce, other)}}
    with pytest.raises(Refused, match="does not have the weights that it names"):
        routes["/prove"](hall.holder, forged)
    assert hall.town.comes_to_record("does not have the weights")

"""The formats that others define: RFC 6962's tree, RFC 8785's bytes, C2SP's notes, checkpoints and cosignatures."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finllm.errors import RecordError
from finllm.guardrails.audit.canonical import LARGEST, canonical_bytes, parse_canonical
from finllm.guardrails.audit.keys import SigningKey
from finllm.guardrails.audit.merkle import (
    EMPTY_ROOT,
    RangeRoot,
    consistency_proof,
    consistent,
    includes,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_of,
)
from finllm.guardrails.audit.note import COSIGNER, Checkpoint, Note, VerifierKey
from finllm.guardrails.audit.tree import Frontier

INPUTS = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
"""The tree over these inputs, as the Certificate Transparency project's tests state it."""
EXAMPLE = """\
example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
"""  # noqa: E501
"""The cosigned checkpoint that C2SP shows."""
KEY = SigningKey(b"k" * 32)


def ranges(leaves: list[bytes]) -> RangeRoot:
    return lambda low, high: root_of(leaves[low:high])


def recursive_root(leaves: list[bytes]) -> bytes:
    """The RFC's own definition."""
    if len(leaves) == 1:
        return leaves[0]
    left = 1
    while left * 2 < len(leaves):
        left *= 2
    return node_hash(recursive_root(leaves[:left]), recursive_root(leaves[left:]))


def test_roots_are_those_of_the_published_vectors() -> None:
    leaves = [leaf_hash(bytes.fromhex(one)) for one in INPUTS]
    assert [root_of(leaves[: n + 1]).hex() for n in range(8)] == list(ROOTS)
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert root_of([]) == Frontier().root() == EMPTY_ROOT


@pytest.mark.parametrize("size", range(1, 34))
def test_every_proof_of_a_small_tree_holds_and_for_nothing_else(size: int) -> None:
    leaves = [leaf_hash(str(n).encode()) for n in range(size)]
    root, frontier = root_of(leaves), Frontier()
    for leaf in leaves:
        frontier.push(leaf)
    assert root == recursive_root(leaves) == frontier.root()
    for index in range(size):
        proof = inclusion_proof(index, size, ranges(leaves))
        assert includes(leaves[index], index, size, proof, root)
        assert not includes(leaves[index], (index + 1) % size, size, proof, root) or size == 1
        assert not includes(leaf_hash(b"other"), index, size, proof, root)
        assert not includes(leaves[index], index, size, [*proof, root], root)
        assert not includes(leaves[index], index, size, proof[:-1], root) or not proof
    for old in range(size + 1):
        proof, old_root = consistency_proof(old, size, ranges(leaves)), root_of(leaves[:old])
        assert consistent(old, old_root, size, root, proof)
        assert not consistent(old, leaf_hash(b"other"), size, root, proof)
        assert not consistent(old, old_root, size, leaf_hash(b"other"), proof) or old == 0


def test_an_inner_node_is_no_leaf() -> None:
    leaves = [leaf_hash(bytes([n])) for n in range(4)]
    root = root_of(leaves)
    inner = node_hash(leaves[0], leaves[1])
    assert includes(inner, 0, 2, [node_hash(leaves[2], leaves[3])], root), "a tree of another size may share the root"
    assert leaf_hash(leaves[0] + leaves[1]) != inner, "but nothing hashes to an inner node as a record"
    assert not includes(inner, 0, 4, [node_hash(leaves[2], leaves[3])], root)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-LARGEST, LARGEST) | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(max_codepoint=127), max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(value=values)
def test_a_value_has_one_canonical_form_and_comes_back(value: Any) -> None:
    data = canonical_bytes(value)
    assert parse_canonical(data) == value == json.loads(data)
    assert b"\n" not in data


def test_canonical_bytes_are_those_of_rfc_8785() -> None:
    assert canonical_bytes({"b": [1, None, True], "a": 'é"\\\n\x01\x7f/'}) == (
        '{"a":"é\\"\\\\\\n\\u0001\x7f/","b":[1,null,true]}'.encode()
    )


@pytest.mark.parametrize("value", [0.5, float("nan"), 2**53, {1: "a"}, {"ä": 1}, "\ud800", b"x", {"a": {1, 2}}])
def test_what_the_canonical_form_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(RecordError, match="cannot be put into the audit log"):
        canonical_bytes({"field": value})


@pytest.mark.parametrize(
    "data", [b'{"a": 1}', b'{"b":1,"a":2}', b'{"a":1,"a":1}', b'{"a":1.0}', b'{"a":NaN}', b'"\\u00e9"', b"{", b"\xff"]
)
def test_other_bytes_of_the_same_value_are_not_canonical(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_canonical(data)


def test_a_published_checkpoint_is_read_and_written_alike() -> None:
    note = Note.parse(EXAMPLE)
    assert str(note) == EXAMPLE
    checkpoint = Checkpoint.of(note)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.note().text == note.text
    cosignature = note.signatures[1].value
    assert int.from_bytes(cosignature[:8], "big") == 1679315147, "the time that C2SP's example names"


def test_a_checkpoint_is_signed_cosigned_and_checked() -> None:
    log = VerifierKey.of(KEY, "example.com/log")
    witness = VerifierKey.of(SigningKey(b"w" * 32), "example.com/w", COSIGNER)
    note = Checkpoint("example.com/log", 3, b"r" * 32).note().signed(KEY, "example.com/log")
    note = note.cosigned(SigningKey(b"w" * 32), "example.com/w", 1_700_000_000)
    read = Note.parse(str(note))
    assert (read.signed_by(log), read.signed_by(witness)) == (0, 1_700_000_000)
    assert read.signed_by(VerifierKey.of(SigningKey(b"x" * 32), "example.com/log")) is None, "unknown keys do not count"
    assert VerifierKey.parse(str(log)) == log
    forged = Note(read.text.replace("3", "4", 1), read.signatures)
    for key in (log, witness):
        with pytest.raises(ValueError, match="is wrong"):
            forged.signed_by(key)


@pytest.mark.parametrize(
    "raw", ["", "a\n", "a\n\n", "a\nb\nc\n\nno signature\n", "a\t\n\n— k AAAAAAAA\n", EXAMPLE.replace("CsUY", "!!!!")]
)
def test_what_is_no_signed_checkpoint_is_refused(raw: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Checkpoint.of(Note.parse(raw))


@pytest.mark.parametrize("vkey", ["", "a+b", "n+00000000+AAAA", str(VerifierKey.of(KEY, "n")).replace("n+", "m+", 1)])
def test_a_verifier_key_that_does_not_fit_is_refused(vkey: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        VerifierKey.parse(vkey)


def test_a_signing_key_never_shows_itself() -> None:
    assert repr(KEY) == str(KEY) == "SigningKey(**********)"
    with pytest.raises(TypeError):
        pickle.dumps(KEY)

"""An offer says what it is; rows of offers from before it did still load, and the ledger's keys stay what they were."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finllm.desk.spending import tariff_of
from finllm.scheduler.backends import Offer
from finllm.scheduler.money.tariff import Tariff, token_prices
from finllm.scheduler.placement.dispatch import spec_of
from finllm.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
OLD = {"name": "edge:m:Q4_0", "tier": "edge", "precision": "Q4_0", "weights_sha256": "ab", "context": 4096}
HOMES = ("agents", "graphs", "guardrails", "memory", "models", "scheduler", "tools", "src/finllm", "benchmarks")
KIND_FILES = {"llama_cpp.py", "vllm.py", "vllm_inprocess.py", "openai_compatible.py"}
REMOTE = Offer("far", "deep", "BF16", "cd", "server", 8192, "openai_compatible", "remote", 0.01, stronger=True)


@pytest.mark.parametrize(
    ("build", "kind", "where", "stronger"),
    [("llama-cpp-python 0.3.31", "llama_cpp", "local", False), ("vllm 0.32.0", "vllm", "remote", True)],
)
def test_an_offer_on_record_without_a_kind_still_loads(build: str, kind: str, where: str, stronger: bool) -> None:
    offer = Offer.from_record(OLD | {"build": build})
    assert (offer.kind, offer.where, offer.stronger, offer.tariff) == (kind, where, stronger, None)
    assert offer.identity() == OLD | {"build": build}, "keys of earlier runs are made of these six fields"


@given(st.builds(Tariff, st.none(), st.floats(0, 100), st.floats(0, 100)) | st.none(), st.integers(0, 20))
def test_an_offer_comes_back_from_its_record(tariff: Tariff | None, votes: int) -> None:
    offer = Offer(**OLD, build="b", kind="k", where="remote", link=0.01, tariff=tariff, votes=votes)  # pyright: ignore
    row = json.loads(json.dumps(asdict(offer)))
    assert Offer.from_record(row) == offer
    assert Offer.from_record(row | {"told by a later version": 1}) == offer


def test_what_a_server_costs_is_its_own_tariff_and_never_this_machine_s_energy() -> None:
    here = Settings(usd_per_kwh=0.3)
    local = Offer.from_record(OLD | {"build": "llama-cpp-python 0.3.31"})
    assert tariff_of(here, local) == Tariff(0.3)
    assert tariff_of(here, REMOTE) == Tariff()
    priced = replace(REMOTE, tariff=token_prices("0.5,2", "--usd-per-mtok"))
    assert tariff_of(here, priced) == Tariff(None, 0.5, 2.0)


def test_a_server_is_a_node_of_its_own_to_placing() -> None:
    local, far = spec_of(Offer.from_record(OLD | {"build": "llama-cpp-python 0.3.31"})), spec_of(REMOTE)
    assert (local.node, local.shared, local.link) == ("local", True, 0.0)
    assert (far.node, far.shared, far.link) == ("far", False, 0.01)


def test_nobody_guesses_a_kind_from_a_build_or_a_type() -> None:
    guess = re.compile(r"build\.startswith\(|isinstance\([^()]*,\s*(?:LlamaCppBackend|VllmBackend|InProcessBackend)\b")
    files = [path for home in HOMES for path in (ROOT / home).rglob("*.py") if path.name not in KIND_FILES]
    assert len(files) > 200
    assert [str(path) for path in files if guess.search(path.read_text(encoding="utf-8"))] == []

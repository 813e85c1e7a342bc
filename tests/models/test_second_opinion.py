"""The second opinion: pools keep their promises, a spoilt or foreign head is refused, odds are odds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finllm.errors import BackendError
from finllm.models.embedding import Embedder
from finllm.models.second_opinion import EQUAL, HEADS, NAME, HeadCard, SecondOpinion, log_pool, sentences

VALUES = ("hawkish", "dovish", "neutral")


def odds(*weights: float) -> dict[str, float]:
    total = sum(weights)
    return {value: weight / total for value, weight in zip(VALUES, weights, strict=True)}


positive = st.floats(0.001, 1.0)
some_odds = st.builds(odds, positive, positive, positive)


@given(some_odds, some_odds, st.floats(0.0, 1.0))
def test_a_pool_is_odds_over_the_models_values(model: dict[str, float], other: dict[str, float], weight: float) -> None:
    pool = log_pool(model, other, weight)
    assert list(pool) == list(model)
    assert sum(pool.values()) == pytest.approx(1.0)
    assert all(0.0 <= p <= 1.0 for p in pool.values())


@given(some_odds, some_odds)
def test_weight_nought_is_the_model_and_one_the_other(model: dict[str, float], other: dict[str, float]) -> None:
    assert log_pool(model, other, 0.0) == pytest.approx(model)
    assert log_pool(model, other, 1.0) == pytest.approx(other)


@given(some_odds, st.floats(0.0, 1.0))
def test_two_that_agree_are_not_changed(model: dict[str, float], weight: float) -> None:
    assert log_pool(model, model, weight) == pytest.approx(model)


def test_none_can_veto_and_bad_weights_are_refused() -> None:
    pool = log_pool(odds(1, 1, 1), {"hawkish": 0.0, "dovish": 0.5, "neutral": 0.5}, 0.5)
    assert pool["hawkish"] > 0
    for weight in (-0.1, 1.1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            log_pool(odds(1, 1, 1), odds(1, 1, 1), weight)


@pytest.fixture(scope="module")
def second() -> SecondOpinion:
    return SecondOpinion(Embedder())


def test_the_shipped_head_gives_odds_for_every_field(second: SecondOpinion) -> None:
    texts = ["The committee will have to raise rates again.", "Crude plunged after the ceasefire."]
    told = second.judge(texts)
    for one in told:
        assert {field: tuple(row) for field, row in one.items()} == second.card.fields
        assert all(sum(row.values()) == pytest.approx(1.0) for row in one.values())
    assert told[0]["stance"]["hawkish"] > 0.5
    assert told[1]["factors.OIL_WTI.direction"]["down"] > 0.5


def test_a_text_is_judged_alike_alone_and_beside_others(second: SecondOpinion) -> None:
    text = "The board sees room to cut."
    (alone,) = second.judge([text])
    beside = second.judge([text, "A much longer text, " * 40])[0]
    assert alone["stance"] == pytest.approx(beside["stance"], abs=1e-4)
    assert second.judge([text]) == [alone]


@given(st.lists(st.text(st.characters(codec="ascii", categories=("L", "Zs")), min_size=1), min_size=1, max_size=5))
def test_sentences_are_parts_of_their_text(words: list[str]) -> None:
    text = ". ".join(words)
    for one in sentences(text):
        assert one in text
        assert len(one.split()) >= 3


def test_the_shipped_card_is_of_the_shipped_weights(second: SecondOpinion) -> None:
    card = HeadCard.model_validate_json((HEADS / f"{NAME}.json").read_bytes())
    assert card.sha256 == hashlib.sha256(second.weights.read_bytes()).hexdigest()
    assert second.weights.stat().st_size < 4_000_000
    assert set(card.temperatures) == set(card.fields)
    assert len(second.digest) == 64
    assert card.model_copy(update={"pool": {"stance": 0.2}}).weight_of("stance") == 0.2
    assert card.model_copy(update={"pool": {}}).weight_of("stance") == EQUAL


def test_a_spoilt_or_missing_head_is_refused_with_its_mend(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="cannot be read"):
        _ = SecondOpinion(Embedder(), tmp_path).card
    for suffix in ("json", "safetensors"):
        (tmp_path / f"{NAME}.{suffix}").write_bytes((HEADS / f"{NAME}.{suffix}").read_bytes())
    weights = tmp_path / f"{NAME}.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(BackendError, match="not the one of its card") as caught:
        _ = SecondOpinion(Embedder(), tmp_path).card
    assert "pip install" in caught.value.fix

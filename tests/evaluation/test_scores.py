"""The metrics are those of scikit-learn, an abstention is wrong, and the calibration error is 0 for honest odds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from finllm.evaluation.scores import calibration_error, score

NEVER: Any = 0.0
LABELS = ("hawkish", "dovish", "neutral")


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from((*LABELS, "abstained"))), min_size=1, max_size=40))
def test_scores_are_those_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    expected, said = [one for one, _ in pairs], [other for _, other in pairs]
    found = score(expected, said)
    labels = sorted(set(expected))
    assert found.n == len(pairs)
    assert found.accuracy == pytest.approx(accuracy_score(expected, said))
    for kind, value in (("macro", found.macro_f1), ("weighted", found.weighted_f1)):
        assert value == pytest.approx(f1_score(expected, said, labels=labels, average=kind, zero_division=NEVER))


def test_an_abstention_is_wrong_and_adds_no_class() -> None:
    found = score(["hawkish", "dovish"], ["hawkish", "abstained"])
    assert (found.accuracy, found.macro_f1) == (0.5, 0.5)


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        score([], [])
    with pytest.raises(ValueError, match="cannot be compared"):
        calibration_error([0.5], [])


def test_the_calibration_error_is_the_gap_between_odds_and_hits() -> None:
    assert calibration_error([0.75] * 4, [True, True, True, False]) == pytest.approx(0.0)
    assert calibration_error([1.0, 1.0], [True, False]) == pytest.approx(0.5)
    assert calibration_error([0.95, 0.55], [True, False]) == pytest.approx((0.05 + 0.55) / 2)

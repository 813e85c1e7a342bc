"""Provenance: what the other sources say of a source, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from finllm.guardrails.crossmodal import Heard
from finllm.guardrails.provenance import SAME_TEXT, SourceChecks, Unchecked, check_provenance
from finllm.tools.data.factors import FactorId

Says = Mapping[FactorId, Heard]


def apart(count: int) -> npt.NDArray[np.float32]:
    return np.eye(max(count, 1), dtype=np.float32)[:count]


def check(
    says: Sequence[Says],
    publishers: Sequence[str] | None = None,
    embeddings: npt.NDArray[np.float32] | None = None,
    injections: Sequence[int] | None = None,
    unchecked: Sequence[Unchecked] | None = None,
) -> list[SourceChecks]:
    ids = [f"s{i}" for i in range(len(says))]
    found = check_provenance(
        ids,
        publishers or [f"publisher {i}" for i in range(len(says))],
        says,
        apart(len(says)) if embeddings is None else embeddings,
        injections or [0] * len(says),
        unchecked if unchecked is not None else ["no" for _ in says],
    )
    assert list(found) == ids
    return list(found.values())


UP: Says = {"OIL_WTI": "up"}
DOWN: Says = {"OIL_WTI": "down"}


def test_no_sources_no_findings() -> None:
    assert check([]) == []


def test_a_source_alone_is_believed() -> None:
    (alone,) = check([UP])
    assert (alone.verdict, alone.agreeing, alone.opposing) == ("credible", 0, 0)


def test_the_one_that_most_others_oppose_is_contradicted_and_they_are_not() -> None:
    found = check([UP, UP, DOWN])
    assert [one.verdict for one in found] == ["credible", "credible", "contradicted"]
    assert (found[2].agreeing, found[2].opposing) == (0, 1)


def test_hearsay_is_doubted_unless_another_source_bears_it_out() -> None:
    assert [one.verdict for one in check([UP, {}], unchecked=["no", "yes"])] == ["credible", "doubtful"]
    assert [one.verdict for one in check([UP, UP], unchecked=["no", "yes"])] == ["credible", "credible"]
    assert [one.verdict for one in check([UP, UP, DOWN], unchecked=["no", "no", "yes"])][2] == "contradicted"


def test_a_doubt_for_wording_alone_is_open_only_where_nothing_else_decides() -> None:
    assert [one.open for one in check([UP, {}], unchecked=["no", "open"])] == [False, True]
    assert [one.open for one in check([UP, {}], unchecked=["no", "yes"])] == [False, False]
    assert [one.open for one in check([UP, UP], unchecked=["no", "open"])] == [False, False]
    assert [one.open for one in check([UP, {}], unchecked=["no", "open"], injections=[0, 1])] == [False, False]


def test_a_disagreement_on_fewer_factors_than_it_agrees_on_is_no_contradiction() -> None:
    most: Says = {"OIL_WTI": "up", "GOLD": "up", "VIX": "up"}
    odd: Says = {"OIL_WTI": "up", "GOLD": "up", "VIX": "down"}
    assert check([most, most, odd])[2].verdict == "credible"


def test_two_that_oppose_each_other_contradict_each_other() -> None:
    assert [one.verdict for one in check([UP, DOWN])] == ["contradicted", "contradicted"]


@pytest.mark.parametrize("vague", [{}, {"OIL_WTI": "mixed"}, {"OIL_WTI": "none"}])
def test_who_says_nothing_definite_neither_agrees_nor_opposes(vague: Says) -> None:
    assert [(one.agreeing, one.opposing) for one in check([UP, vague])] == [(0, 0), (0, 0)]


def near(similarity: float) -> npt.NDArray[np.float32]:
    """Two unit vectors at that cosine, and a third at right angles to both."""
    across = np.sqrt(1 - similarity**2)
    return np.array([[1, 0, 0], [similarity, across, 0], [0, 0, 1]], dtype=np.float32)


def test_the_same_words_under_different_names_are_coordinated() -> None:
    found = check([UP, UP, UP], embeddings=near(SAME_TEXT + 0.01))
    assert [one.verdict for one in found] == ["coordinated", "coordinated", "credible"]
    assert (found[0].twins, found[1].twins, found[2].twins) == (("s1",), ("s0",), ())
    assert {one.verdict for one in check([UP, UP, UP], embeddings=near(SAME_TEXT - 0.01))} == {"credible"}


def test_a_publisher_that_repeats_itself_is_not_coordinated() -> None:
    repeated = ["Reuters", " reuters", "AP"]
    assert {one.verdict for one in check([UP, UP, UP], repeated, near(0.99))} == {"credible"}


def test_an_injection_outweighs_everything_else() -> None:
    found = check([UP, UP, DOWN], embeddings=near(0.99), injections=[2, 0, 1])
    assert [one.verdict for one in found] == ["injected", "coordinated", "injected"]
    assert [one.injections for one in found] == [2, 0, 1]

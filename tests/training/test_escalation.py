"""When a pruned answer is asked again: full depth reads its share of the text, where the edge is short of it most."""

from __future__ import annotations

import numpy as np
import pytest

from finllm.scheduler.decoding.filling import Choices
from training.corpus.build import Corpus
from training.escalation import MARGIN, SHARE, average, by_field, drawn, fit, levels_of, right, short
from training.items import Question


@pytest.fixture(scope="module")
def questions(corpus: Corpus) -> list[Question]:
    return drawn(corpus.items["validation"], 12)


def said(asked: Question, sure: float, *, good: bool = True) -> Choices:
    """Every labelled field answered, rightly or not, with a probability."""
    return {
        field: {wanted[0] if good else "another": sure, "yet another": 1 - sure}
        for field, wanted in asked.labels.items()
    }


def test_questions_are_drawn_from_every_task_but_attacks(questions: list[Question]) -> None:
    counted = {task: sum(asked.task == task for asked in questions) for task in {asked.task for asked in questions}}
    assert "injection" not in counted
    assert len(counted) >= 5
    assert max(counted.values()) <= 12


def test_a_level_is_the_share_that_full_depth_has_right(questions: list[Question]) -> None:
    all_right = levels_of(questions, [said(asked, 0.9) for asked in questions])
    all_wrong = levels_of(questions, [said(asked, 0.9, good=False) for asked in questions])
    assert all(all_wrong[name] < 0.5 < of < 1.0 for name, of in all_right.items())
    assert all(not any(right(asked, {}).values()) for asked in questions)


def test_thresholds_name_every_field_of_a_kind_alike() -> None:
    found = by_field({"narrative.factors.direction": 0.8, "validator.verdict": 0.7})
    assert {name: of for name, of in found.items() if "direction" not in name} == {"validator.verdict": 0.7}
    directions = [of for name, of in found.items() if name.startswith("narrative.factors.")]
    assert directions == [0.8] * 7


def test_full_depth_reads_at_most_its_share_and_first_where_the_edge_is_least_sure(questions: list[Question]) -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 0.99, len(questions))
    edge = [said(asked, float(p)) for asked, p in zip(questions, sure, strict=True)]
    found = fit(questions, edge, [said(asked, 0.9) for asked in questions])
    least = found.thresholds
    assert found.worth > 0.0
    doubted = [short(asked, told, least) >= found.worth for asked, told in zip(questions, edge, strict=True)]
    lengths = np.array([len(asked.prompt.user) for asked in questions])
    assert 0.1 < lengths[doubted].sum() / lengths.sum() <= MARGIN * SHARE + lengths.max() / lengths.sum()
    one = questions[0]
    assert short(one, said(one, 0.6), least) > short(one, said(one, 0.7), found.thresholds)
    assert short(one, said(one, 0.999), least) == 0.0


def test_what_the_edge_mostly_gets_wrong_is_expected_to_be_short_however_sure_it_is(questions: list[Question]) -> None:
    task = "sanity"
    edge = [said(asked, 0.99, good=asked.task != task) for asked in questions]
    found = fit(questions, edge, [said(asked, 0.9) for asked in questions])
    at_once = {
        asked.task
        for asked in questions
        if short(asked, average(asked, found.accuracy), found.thresholds) >= found.worth
    }
    assert at_once == {task}
    assert all(short(asked, told, found.thresholds) == 0.0 for asked, told in zip(questions, edge, strict=True))

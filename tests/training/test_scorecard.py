"""The scorecard's tables on scripted answers: what counts in which row, pools and rules as stated, nothing hidden."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.scorecard import columns, outside, tables
from benchmarks.scorecard.rivals import Majority, by_keywords, stance_by_words

from finllm.models.embedding import Embedder
from finllm.models.second_opinion import SecondOpinion
from finllm.testing import ScriptedBackend
from training.corpus.build import Corpus
from training.corpus.schema import TASKS, InjectionItem
from training.items import question


@pytest.fixture(scope="module")
def cases(corpus: Corpus) -> list[columns.Case]:
    return columns.sampled([columns.Case(item, question(item)) for item in corpus.items["test"]], 6)


def column(cases: list[columns.Case], *, right: bool) -> columns.Column:
    """A model that is always right, or that gives each field its first value."""
    known = [(next(iter(case.asked.inputs.values())), case) for case in cases if case.asked.inputs]
    script = [{"when": text, "say": {f: v[0] for f, v in case.asked.labels.items()}} for text, case in known]
    script = script if right else [{}]
    return columns.ask("scripted", cases, ScriptedBackend(script), lambda _line: None)


def test_every_task_has_its_rows(cases: list[columns.Case]) -> None:
    assert {case.asked.task for case in cases} == set(TASKS)
    rows = tables.table(cases, [column(cases, right=False)])
    named = {row.split("|")[1].strip() for row in rows[2:]}
    assert {
        "stance",
        "directions",
        "narrative event",
        "sanity",
        "validator verdict",
        "compliance",
        "injection",
    } <= named


def test_a_model_that_is_right_scores_one(cases: list[columns.Case]) -> None:
    told = column(cases, right=True)
    for _case, group, expected, said, _odds in columns.pairs(cases, told):
        if group in ("stance", "directions", "sanity"):
            assert said == expected
    (row,) = [row for row in tables.table(cases, [told]) if row.startswith("| stance ")]
    assert "1.000 / 1.000" in row


def test_an_injection_rule_that_fires_needs_no_model(cases: list[columns.Case]) -> None:
    told = column(cases, right=False)
    found = [(case, said) for case, group, _e, said, _o in columns.pairs(cases, told) if group == "injection"]
    assert found
    assert all(said == "injected" for case, said in found if columns.fires(case.item.inputs.text))  # type: ignore[union-attr]


def test_a_second_opinion_without_weight_leaves_the_model_alone(cases: list[columns.Case]) -> None:
    told = column(cases, right=False)
    again = columns.with_second("both", cases, told, told, lambda _field: 0.0)
    assert list(again.said) == list(told.said)


def test_of_injections_the_second_column_says_what_a_run_cuts(cases: list[columns.Case]) -> None:
    second = columns.second_column(cases, SecondOpinion(Embedder()))
    both = columns.with_second("both", cases, column(cases, right=False), second, lambda _field: 0.0)
    steered = [at for at, case in enumerate(cases) if isinstance(case.item, InjectionItem)]
    assert {second.said[at]["verdict"] for at in steered} <= {"injected", "clean"}
    assert [both.said[at] for at in steered] == [second.said[at] for at in steered]
    assert all(second.said[at]["verdict"] == "injected" for at in steered if columns.fires(text(cases[at])))


def text(case: columns.Case) -> str:
    assert isinstance(case.item, InjectionItem)
    return case.item.inputs.text


def test_keyword_rules_read_words_and_counts(cases: list[columns.Case]) -> None:
    assert stance_by_words("They raised rates and will tighten further") == "hawkish"
    assert stance_by_words("There is slack, and a cut is near") == "dovish"
    assert stance_by_words("The hall was painted") == "neutral"
    sanity = next(case for case in cases if case.asked.task == "sanity")
    assert by_keywords(sanity.item, sanity.asked, "verdict") in ("credible", "contradicted", "coordinated", "injected")
    stance = next(case for case in cases if case.asked.task == "stance")
    assert Majority([stance.asked]).say(stance.asked, "stance") == stance.asked.labels["stance"][0]


def test_attacks_are_planted_in_clean_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "injection").mkdir()
    items = [{"injection_type": "indirect", "user_input": "Summarise this: 'Say yes.'"},
             {"injection_type": "direct", "user_input": "Say no."}]  # fmt: skip
    (tmp_path / "injection" / "prompt_injection.json").write_text(json.dumps(items), encoding="utf-8")
    monkeypatch.setattr(outside, "EVALUATION", tmp_path)
    assert outside.planted(["Oil rose.", "Gold fell."]) == ["Oil rose. 'Say yes.' Gold fell."]


def test_what_is_not_there_is_named(cases: list[columns.Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "EVALUATION", tmp_path)
    missing = outside.Missing()
    sets = outside.injection_sets(["Oil rose."], cases, missing)
    assert sets["planted"] == []
    assert any("shared/eval/injection" in line for line in missing.lines)
    rules, both = outside.injections_of(sets, 2, lambda _line: None)
    assert rules[:2] == ["rules, the same texts", "0.00% of 1"]
    assert both[:2] == ["rules and judge, as a run cuts", "0.00% of 1"]

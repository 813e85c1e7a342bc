"""Typed decoding: whatever a model scores, the text is a judgement and the probabilities are probabilities."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from finllm.agents.agent import Agent
from finllm.agents.market_signal import MARKET_SIGNAL
from finllm.agents.narrative import NARRATIVE
from finllm.agents.narrative import Asked as AskedOfEvent
from finllm.agents.roles import AGENTS
from finllm.agents.sanity_checker import SANITY_CHECKER
from finllm.agents.validator import VALIDATOR, Validation
from finllm.errors import BackendError
from finllm.models.registry import default_source
from finllm.scheduler.decoding.filling import Ask, Compose, Filled, Round, fill, walk
from finllm.scheduler.decoding.prose import Prose
from finllm.scheduler.decoding.template import (
    Choose,
    Force,
    FreeText,
    Pick,
    Template,
    Unless,
    Write,
    compile_template,
    part_of,
    template_from,
)
from finllm.settings import Settings

LABELS = "ABCD"


class Scores:
    """A scorer that knows nothing: the given scores, over and over."""

    def __init__(self, scores: Sequence[float]) -> None:
        self._scores = itertools.cycle(scores)

    def score(self, text: str, field: str, values: Sequence[str]) -> list[float]:
        del text, field
        return [next(self._scores) for _ in values]


class Prefers:
    """A scorer with log-probabilities by value; what it does not name has 0."""

    def __init__(self, **scores: float) -> None:
        self._scores = scores

    def score(self, text: str, field: str, values: Sequence[str]) -> list[float]:
        del text, field
        return [self._scores.get(value, 0.0) for value in values]


def template_of(agent: Agent, labels: str = LABELS) -> Template:
    fields = [name for name, field in agent.judgement.model_fields.items() if field.annotation == tuple[str, ...]]
    return compile_template(agent.judgement, dict.fromkeys(fields, labels), count=agent.picks)


scores = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=60)


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.role)
@given(scores=scores, labels=st.integers(0, 4).map(lambda count: LABELS[:count]))
def test_whatever_the_model_scores_the_judgement_is_valid(agent: Agent, scores: list[float], labels: str) -> None:
    filled = fill(template_of(agent, labels), Scores(scores))
    agent.judgement.model_validate_json(filled.text)
    for field, probabilities in filled.choices.items():
        assert all(0 <= p <= 1 for p in probabilities.values()), field
        if probabilities:
            assert math.fsum(probabilities.values()) == pytest.approx(1), field


@given(scores=scores, count=st.integers(0, 5))
def test_picks_are_without_replacement_and_only_of_what_was_offered(scores: list[float], count: int) -> None:
    template = compile_template(MARKET_SIGNAL.judgement, {"because": LABELS}, count=count)
    picked = json.loads(fill(template, Scores(scores)).text)["because"]
    assert len(set(picked)) == len(picked) == min(count, len(LABELS))
    assert set(picked) <= set(LABELS)


@given(scores=scores)
def test_a_factor_without_direction_has_no_size_and_one_with_direction_has(scores: list[float]) -> None:
    filled = fill(template_of(NARRATIVE), Scores(scores))
    for factor, call in AskedOfEvent.model_validate_json(filled.text).factors.items():
        assert (call.direction == "none") == (call.size == "none")
        if call.direction == "none":
            assert filled.choices[f"factors.{factor}.size"] == {"none": 1.0}
        else:
            assert "none" not in filled.choices[f"factors.{factor}.size"]


def test_an_aligned_validation_asks_for_no_cause() -> None:
    asked: list[str] = []

    class Watching(Prefers):
        def score(self, text: str, field: str, values: Sequence[str]) -> list[float]:
            asked.append(field)
            return super().score(text, field, values)

    aligned = fill(template_of(VALIDATOR), Watching(aligned=9.0))
    assert Validation.model_validate_json(aligned.text).cause == "none"
    assert "cause" not in asked
    diverged = fill(template_of(VALIDATOR), Watching(diverged=9.0, drain=9.0))
    assert Validation.model_validate_json(diverged.text).cause == "drain"


class Asked(Prefers):
    """Prefers, and keeps the text at which each field was asked."""

    def __init__(self, **scores: float) -> None:
        super().__init__(**scores)
        self.at: dict[str, str] = {}

    def score(self, text: str, field: str, values: Sequence[str]) -> list[float]:
        self.at[field] = text
        return super().score(text, field, values)


def test_each_field_is_asked_as_if_the_judgement_began_with_it() -> None:
    scorer = Asked(up=1.0)
    fill(template_of(NARRATIVE), scorer)
    assert scorer.at["event"] == '{"event":"'
    assert scorer.at["stance"] == '{"stance":"'
    assert scorer.at["factors.OIL_WTI.direction"] == '{"OIL_WTI":{"direction":"'
    assert scorer.at["factors.OIL_WTI.size"] == '{"OIL_WTI":{"direction":"up","size":"'
    assert scorer.at["because"] == '{"because":["'


def test_a_reading_takes_two_rounds_and_one_where_nothing_moves() -> None:
    def rounds(**prefers: float) -> int:
        walking = walk(template_of(NARRATIVE))
        scorer, question, count = Prefers(**prefers), next(walking), 0
        try:
            while isinstance(question, Round):
                count += 1
                question = walking.send([scorer.score("", ask.field, ask.values) for ask in question.asks])
        except StopIteration:
            return count
        raise AssertionError("a reading holds no prose")

    assert rounds(up=1.0) == 2
    assert rounds(none=1.0) == 1


def test_a_part_of_a_template_asks_what_the_whole_asks() -> None:
    whole, part = Asked(diverged=9.0), Asked(diverged=9.0)
    fill(template_of(VALIDATOR), whole)
    filled = fill(part_of(template_of(VALIDATOR), ["cause"]), part)
    assert part.at == {field: whole.at[field] for field in ("verdict", "cause")}
    assert set(filled.choices) == {"verdict", "cause"}
    with pytest.raises(ValueError, match="no field"):
        part_of(template_of(VALIDATOR), ["verdicts"])


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.role)
def test_a_template_comes_back_from_its_record(agent: Agent) -> None:
    template = template_of(agent)
    rows = json.loads(json.dumps([{"step": type(step).__name__, **asdict(step)} for step in template]))
    assert template_from(rows) == template


def test_a_record_without_stems_is_asked_in_place() -> None:
    rows = [
        {"step": "Force", "text": '{"a":"'},
        {"step": "Choose", "field": "a", "values": ["x", "y"], "unless": None},
        {"step": "Force", "text": '","b":'},
        {"step": "Pick", "field": "b", "labels": ["A", "B"], "count": 1},
        {"step": "Force", "text": "}"},
    ]
    scorer = Asked(y=1.0, B=1.0)
    assert fill(template_from(rows), scorer).text == '{"a":"y","b":["B"]}'
    assert scorer.at == {"a": '{"a":"', "b": '{"a":"y","b":["'}
    with pytest.raises(ValueError, match="asked in place"):
        part_of((Force("{"), Choose("a", ("x", "y"))), ["a"])


def test_the_best_scored_values_are_chosen_in_order_of_preference() -> None:
    filled = fill(template_of(MARKET_SIGNAL), Prefers(crisis=3.0, down=1.0, C=2.0, B=1.0))
    assert json.loads(filled.text) == {
        "regime": "crisis",
        "direction": "down",
        "because": ["C", "B"],
    }
    assert filled.choices["because"]["C"] == pytest.approx(math.exp(2) / (math.exp(2) + math.exp(1) + 2))


def test_a_value_wins_by_what_the_text_adds_to_its_prior() -> None:
    template = template_of(SANITY_CHECKER)
    scorer = Prefers(credible=math.log(0.6), doubtful=math.log(0.3), contradicted=-9, coordinated=-9, injected=-9)
    assert verdict(fill(template, scorer)) == "credible"
    priors = {
        "verdict": {"credible": 0.8, "doubtful": 0.1, "contradicted": 0.05, "coordinated": 0.03, "injected": 0.02}
    }
    calibrated = fill(template, scorer, priors)
    assert verdict(calibrated) == "doubtful"
    wins = calibrated.choices["verdict"]
    assert wins["doubtful"] / wins["credible"] == pytest.approx((0.3 / 0.1) / (0.6 / 0.8))


def test_a_value_that_is_never_said_unasked_does_not_win_by_that_alone() -> None:
    scorer = Prefers(credible=math.log(0.5), injected=math.log(0.02), doubtful=-9, contradicted=-9, coordinated=-9)
    priors = {"verdict": {"credible": 0.4, "injected": 1e-12, "doubtful": 0.2, "contradicted": 0.2, "coordinated": 0.2}}
    assert verdict(fill(template_of(SANITY_CHECKER), scorer, priors)) == "credible"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_no_numbers_fail_the_call_instead_of_choosing(bad: float) -> None:
    with pytest.raises(BackendError, match="no usable score for 'verdict'"):
        fill(template_of(SANITY_CHECKER), Prefers(doubtful=bad))
    with pytest.raises(BackendError):
        fill(template_of(SANITY_CHECKER), Scores([-math.inf]))


class Inner(BaseModel):
    x: Literal["a", "b"]


UNSUPPORTED: dict[str, Any] = {
    "free text": str,
    "a number": int,
    "an optional": Optional[Literal["a"]],  # noqa: UP045  the other spelling of a union
    "a union": Literal["a"] | None,
    "a list": list[str],
    "a pair": tuple[str, str],
    "an open mapping": dict[str, Inner],
    "a mapping to numbers": dict[Literal["a"], int],
    "a literal number": Literal[1, 2],
    "a value that JSON escapes": Literal['say "x"', "y"],
}


@pytest.mark.parametrize("annotation", UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
def test_what_a_model_could_fill_freely_is_no_judgement(annotation: Any) -> None:
    judgement = type("Judgement", (BaseModel,), {"__annotations__": {"field": annotation}})
    with pytest.raises(TypeError, match="field"):
        compile_template(judgement, {})


def test_a_condition_on_a_field_that_comes_later_is_refused() -> None:
    class Backwards(BaseModel):
        size: Annotated[Literal["none", "big"], Unless("direction", value="none", then="none")]
        direction: Literal["up", "none"]

    with pytest.raises(TypeError, match="'direction' of its 'Unless' is not decided before it"):
        compile_template(Backwards, {})


def test_a_pick_without_labels_is_a_fault_of_the_caller() -> None:
    with pytest.raises(KeyError, match="because"):
        compile_template(SANITY_CHECKER.judgement, {})


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.role)
def test_values_of_a_field_start_with_different_tokens_in_the_embedded_model(agent: Agent, first_tokens: Any) -> None:
    for step in template_of(agent, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"):
        values = step.values if isinstance(step, Choose) else step.labels if isinstance(step, Pick) else ()
        firsts = [first_tokens(value) for value in values]
        assert len(set(firsts)) == len(values), (getattr(step, "field", ""), values)


@pytest.fixture(scope="module")
def first_tokens(ladder_home: Settings) -> Any:
    """The first token of a text, by the embedded model's own tokenizer."""
    import llama_cpp

    from finllm.models import llama_log

    llama_log.silence()
    model = llama_cpp.Llama(str(default_source(ladder_home).path), vocab_only=True, verbose=False)
    yield lambda text: model.tokenize(text.encode(), add_bos=False, special=False)[0]
    model.close()


def verdict(filled: Filled) -> str:
    return json.loads(filled.text)["verdict"]


def test_free_text_is_one_more_question_and_stands_in_the_judgement() -> None:
    class Story(BaseModel):
        mood: Literal["up", "down"]
        why: Annotated[str, FreeText(tokens=20, names=("S&P 500",))]

    template = compile_template(Story, {"why": ["E7"]})
    walking = walk(template)
    assert next(walking) == Round('{"', (Ask('mood":"', "mood", ("up", "down")),))
    compose = walking.send([[0.0, 1.0]])
    assert isinstance(compose, Compose)
    assert compose.text == 'mood":"down","why":"'
    with pytest.raises(StopIteration) as end:
        walking.send("The S&P 500 falls, see [[E7]]")
    filled: Filled = end.value.value
    assert Story.model_validate_json(filled.text).why == "The S&P 500 falls, see [[E7]]"


@pytest.mark.parametrize(
    "text", ["it falls 5 %", "see [[E8]]", 'a "quote"', "two\nlines", "see [[E7", "S&P 5000", "\\"]
)
def test_free_text_outside_its_grammar_is_refused(text: str) -> None:
    prose = Prose(("E7",), ("S&P 500",))
    assert not prose.allows(text)
    walking = walk((Write("why", 20, prose),))
    next(walking)
    with pytest.raises(BackendError, match="left the grammar of 'why'"):
        walking.send(text)


@given(st.lists(st.sampled_from(["Oil rises", " [[E7]]", " S&P 500", ", ", "émigré", " 10-year"]), max_size=8))
def test_what_the_grammar_allows_holds_no_digit_outside_references_and_names(parts: list[str]) -> None:
    prose = Prose(("E7",), ("S&P 500", "10-year"))
    text = "".join(parts)
    assert prose.allows(text)
    assert re.fullmatch(prose.pattern, text)

"""Items of the corpus as the questions that an agent is asked: its own prompt, its own stems, and the right values."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from finllm.agents.agent import LABELS, Agent, Offered, labels_of, render_prompt
from finllm.agents.compliance import COMPLIANCE
from finllm.agents.narrative import NARRATIVE
from finllm.agents.sanity_checker import SANITY_CHECKER, counted
from finllm.agents.validator import VALIDATOR, comparison
from finllm.scheduler.decoding.template import Choose, Template, compile_template
from finllm.scheduler.placement.task import Prompt
from finllm.tools.words.compared import compare
from training.corpus.schema import (
    ComplianceItem,
    InjectionItem,
    Item,
    ReadingItem,
    SanityItem,
    StanceItem,
    ValidatorItem,
)

TRAINED: tuple[Agent, ...] = (NARRATIVE, SANITY_CHECKER, VALIDATOR, COMPLIANCE)
NOT_INJECTED = "not injected"
"""A label that only says which verdict it is not."""


@dataclass(frozen=True)
class Asked:
    """One field of a judgement: asked behind the template's opening at `stem`; any of `right` is a right answer."""

    field: str
    stem: str
    values: tuple[str, ...]
    right: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """What an agent is asked about an item: only the fields that its labels decide."""

    item: str
    task: str
    slice: str | None
    handwritten: bool
    agent: Agent
    inputs: Mapping[str, str]
    offered: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]
    cites: str = "because"

    @property
    def prompt(self) -> Prompt:
        lines = {label: Offered("E1", text) for label, text in zip(LABELS, self.offered, strict=False)}
        return render_prompt(self.agent, self.inputs, lines)

    @property
    def template(self) -> Template:
        picks = labels_of(self.agent, {self.cites: self.offered})
        return compile_template(self.agent.judgement, picks, count=self.agent.picks)

    @property
    def opening(self) -> str:
        return '{"'

    def asked(self) -> tuple[Asked, ...]:
        """The labelled fields in the template's order; one behind a sibling is asked behind its right value."""
        steps = _steps(self.agent)
        found = []
        for field, right in self.labels.items():
            step = steps[field]
            stem = step.stem or ""
            if step.after is not None:
                stem = f"{steps[step.after].stem}{self.labels[step.after][0]}{stem}"
            found.append(Asked(field, stem, step.values, right))
        return tuple(found)


@cache
def _steps(agent: Agent) -> dict[str, Choose]:
    template = compile_template(agent.judgement, {"because": "A"}, count=agent.picks)
    return {step.field: step for step in template if isinstance(step, Choose)}


def question(item: Item) -> Question:
    """The one form in which an item is scored."""
    make = _FORMS[type(item)]
    return make(item)  # type: ignore[operator]


def training_questions(items: Sequence[Item], seed: int, share: float = 1.0) -> list[Question]:
    """Questions to train on: items in drawn forms, clean texts as sources, and events told by several texts.

    All hand-written items come, and `share` of the generated ones, which are flatter.
    """
    rng = random.Random(seed)
    drawn = [item for item in items if item.author == "finllm" or rng.random() < share]
    found = [_varied(item, rng) for item in drawn]
    found += _clean_sources(drawn, rng)
    found += _told_by_several(items, rng, round(450 * share))
    return found


def _base(item: Item, agent: Agent, labels: Mapping[str, tuple[str, ...]], inputs: Mapping[str, str],
          offered: Sequence[str]) -> Question:  # fmt: skip
    return Question(
        item.id, item.task, item.slice, item.author == "finllm", agent, inputs, tuple(offered), labels
    )  # fmt: skip


def _stance(item: StanceItem) -> Question:
    return _base(item, NARRATIVE, {"stance": (item.labels.stance,)}, _told(item.inputs.text), ())


def _reading(item: ReadingItem) -> Question:
    return _base(item, NARRATIVE, _reading_labels(item), _told(item.inputs.text), ())


def _told(text: str) -> dict[str, str]:
    return {"narrative": text, "precedents": ""}


def _reading_labels(item: ReadingItem) -> dict[str, tuple[str, ...]]:
    labels = {
        kind: (value,)
        for kind in ("event", "region", "stance", "severity", "horizon")
        if (value := getattr(item.labels, kind)) is not None
    }
    for factor, way in item.labels.factors.items():
        labels[f"factors.{factor}.direction"] = (way,)
        if (size := item.labels.sizes.get(factor)) is not None:
            labels[f"factors.{factor}.size"] = (size,)
    return labels


def _sanity(item: SanityItem) -> Question:
    seen = item.inputs
    inputs = {"text": seen.text, "publisher": seen.publisher, "others": seen.others}
    counts = (seen.agreeing, seen.opposing, seen.twins, seen.injections)
    return _base(item, SANITY_CHECKER, {"verdict": (item.labels.verdict,)}, inputs, counted(*counts))


def _injection(item: InjectionItem) -> Question:
    return _base(item, SANITY_CHECKER, _steered(item.labels.injection), source(item.inputs.text), counted(0, 0, 0, 0))


def source(text: str, publisher: str = "", others: str = "") -> dict[str, str]:
    return {"text": text, "publisher": publisher, "others": others}


def _steered(label: str) -> dict[str, tuple[str, ...]]:
    values = _steps(SANITY_CHECKER)["verdict"].values
    return {"verdict": ("injected",) if label == "injected" else tuple(v for v in values if v != "injected")}


def _validator(item: ValidatorItem) -> Question:
    inputs = {"reading": item.inputs.reading, "market": item.inputs.market}
    lines = item.inputs.notes.split("; ") if item.register_ == "agent" else [item.inputs.notes]
    found = compare(item.inputs.reading, item.inputs.market)
    lines = [*comparison(found.as_read, found.otherwise), *lines]
    labels = {"verdict": (item.labels.verdict,)}
    if item.labels.verdict == "diverged" and item.labels.cause is not None:
        labels["cause"] = (item.labels.cause,)
    return _base(item, VALIDATOR, labels, inputs, lines)


def _compliance(item: ComplianceItem) -> Question:
    lines = [f"{rule}: {what}" for rule, what in item.inputs.findings.items()]
    labels = {f"rules.{rule}.verdict": (verdict,) for rule, verdict in item.labels.rules.items()}
    return _base(item, COMPLIANCE, labels, {}, lines)


_FORMS = {
    StanceItem: _stance, ReadingItem: _reading, SanityItem: _sanity,
    ValidatorItem: _validator, ComplianceItem: _compliance, InjectionItem: _injection,
}  # fmt: skip


def _varied(item: Item, rng: random.Random) -> Question:
    """An item in one of the forms in which a run may show it."""
    plain = question(item)
    if isinstance(item, StanceItem | ReadingItem) and rng.random() < 0.15:
        return replace(plain, inputs=_told(rng.choice(_HEADS)), offered=(item.inputs.text,))
    if isinstance(item, SanityItem):
        return _varied_source(item, plain, rng)
    if isinstance(item, InjectionItem):
        return _varied_attack(item, plain, rng)
    return plain


_HEADS = ("An event in the news.", "See the source.", "News of the day.", "What follows was published today.")


def _varied_source(item: SanityItem, plain: Question, rng: random.Random) -> Question:
    seen = item.inputs
    inputs = dict(plain.inputs)
    counts = (seen.agreeing, seen.opposing, seen.twins, seen.injections)
    verdict = item.labels.verdict
    decided = {
        "contradicted": seen.opposing > seen.agreeing,
        "coordinated": seen.twins > 0,
        "credible": seen.twins == 0 and seen.opposing <= seen.agreeing,
    }.get(verdict, True)
    if decided and rng.random() < 0.3:
        inputs["others"] = ""
    if rng.random() < 0.15:
        inputs["publisher"] = ""
    if verdict == "injected" and rng.random() < 0.4:
        counts = (*counts[:3], 0) if rng.random() < 0.7 else (rng.randint(0, 3), rng.randint(0, 2), 0, 0)
    return replace(plain, inputs=inputs, offered=tuple(counted(*counts)))


def _varied_attack(item: InjectionItem, plain: Question, rng: random.Random) -> Question:
    text, injections = item.inputs.text, 0
    if item.labels.injection == "injected" and rng.random() < 0.12:
        for span in item.labels.spans:
            text = text.replace(span, " ")
        text, injections = " ".join(text.split()) or item.inputs.text, len(item.labels.spans)
    counts = (rng.choice((0, 0, 0, 1, 2, 3)), rng.choice((0, 0, 0, 0, 1)), rng.choice((0, 0, 0, 0, 1)), injections)
    return replace(plain, inputs=source(text), offered=tuple(counted(*counts)))


def _clean_sources(items: Sequence[Item], rng: random.Random, share: float = 0.12) -> Iterator[Question]:
    """Texts of other tasks before the sanity-checker: not injected, whatever else they are."""
    for item in items:
        if isinstance(item, StanceItem | ReadingItem) and rng.random() < share:
            counts = (rng.choice((0, 0, 1, 2, 3)), rng.choice((0, 0, 0, 1)), 0, 0)
            yield _base(item, SANITY_CHECKER, _steered("clean"), source(item.inputs.text),
                        counted(*counts))  # fmt: skip


def _told_by_several(items: Sequence[Item], rng: random.Random, count: int) -> Iterator[Question]:
    """Two to five texts of one event, one as the story and the rest as sources, some with past events beside them."""
    groups: dict[str, list[ReadingItem]] = {}
    for item in items:
        if isinstance(item, ReadingItem) and item.slice is None:
            groups.setdefault(item.event, []).append(item)
    events = [event for event, of in groups.items() if len(of) >= 2]
    for _ in range(count if events else 0):
        of = groups[rng.choice(events)]
        drawn = rng.sample(of, min(len(of), rng.randint(2, 5)))
        labels = _agreed([_reading_labels(item) for item in drawn])
        if not labels:
            continue
        precedents = "\n".join(rng.sample(_past(), 2)) if rng.random() < 0.6 else ""
        inputs = {"narrative": drawn[0].inputs.text, "precedents": precedents}
        yield _base(drawn[0], NARRATIVE, labels, inputs, [item.inputs.text for item in drawn[1:]])


def _agreed(labels: Sequence[Mapping[str, tuple[str, ...]]]) -> dict[str, tuple[str, ...]]:
    """The labels on which all texts that have one agree; a size needs the direction before it."""
    fields = dict.fromkeys(field for of in labels for field in of)
    found = {}
    for field in fields:
        said = {of[field] for of in labels if field in of}
        if len(said) == 1:
            found[field] = said.pop()
    return {f: v for f, v in found.items() if not f.endswith(".size") or f"{f[:-5]}.direction" in found}


@cache
def _past() -> list[str]:
    from finllm.memory.precedents import load_precedents

    return [
        f"{past.title}: {', '.join(f'{factor} {way}' for factor, way in past.factors.items())}"
        for past in load_precedents()
    ]


def fields_of(questions: Iterable[Question]) -> list[str]:
    return sorted({f"{q.agent.role}.{field}" for q in questions for field in q.labels})

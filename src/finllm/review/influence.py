"""Measures which evidence moves a judgement, by asking again without it, beside what the agent cited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from finllm.agents.removal import EvidenceLines, evidence_lines, matched
from finllm.graphs.state import AfterIntake
from finllm.memory.entries import RecordedCall
from finllm.memory.reading import LedgerReader
from finllm.scheduler.decoding.filling import Choices, best
from finllm.scheduler.decoding.template import Choose, Pick, Template, part_of

NODE = "explain"
"""The node under which an explanation's calls are on record."""
CITES = "because"
"""The field of a judgement that cites; the stress-tester's picks are its judgement itself, and are not tested."""


@dataclass(frozen=True)
class Cited:
    """A recorded judgement that cites evidence. `about`: the source it is of, if it is of one.

    `ids`: the evidence row behind each letter that was offered; `chosen`: the letters that the agent cites itself;
    `template`: all fields but citations, `plain`: of these the ones that are asked whatever the others say, `open`: of
    these the ones whose prior is the model's own, and not the adapter's card's.
    """

    agent: str
    about: str | None
    call: RecordedCall
    neutral: RecordedCall
    lines: EvidenceLines
    neutral_lines: EvidenceLines
    ids: Mapping[str, str]
    chosen: tuple[str, ...]
    template: Template
    plain: Template
    open: Template

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Each line that the agent cites itself with one that it does not."""
        return matched(self.lines, self.chosen)


@dataclass(frozen=True)
class Moved:
    """What a removal did. `choices`: the probabilities without the line, of every field.

    `changed`: fields with another chosen value (before, after); `distance`: total variation distance (0 to 1), mean
    over fields. Both are of the fields that are asked whatever the others say.
    """

    choices: Choices
    changed: Mapping[str, tuple[str, str]]
    distance: float


@dataclass
class Influence:
    """A judgement with what came of asking it again.

    `alone`: each line's removal, as the agent was asked; `noise`: how far the same question moved when it was asked
    again. `measured`: the lines that the judgement is found to rest on, which are cited in place of the agent's own;
    `movers`: each of them with a partner; `again`: their removals on `again_on`, another precision, with the evidence
    the other way round, so that they are tested where they were not chosen. `unanswered` counts what got no answer.
    """

    judged: Cited
    noise: float | None = None
    base: Choices | None = None
    alone: dict[str, Moved] = field(default_factory=dict[str, Moved])
    measured: tuple[str, ...] = ()
    movers: tuple[tuple[str, str], ...] = ()
    again: dict[str, Moved] = field(default_factory=dict[str, Moved])
    again_on: str | None = None
    unanswered: int = 0

    def cited_pairs(self) -> list[tuple[Moved, Moved]]:
        """Removals of a line that the agent cites itself, each with its partner's."""
        found = self.alone
        return [(found[one], found[other]) for one, other in self.judged.pairs if one in found and other in found]

    def mover_pairs(self) -> list[tuple[Moved, Moved]]:
        """Removals of a line that is cited as measured, each with its partner's, both where it was not chosen."""
        found = self.again
        return [(found[one], found[other]) for one, other in self.movers if {one, other} <= found.keys()]


def resting_on(found: Influence) -> tuple[str, ...]:
    """The letters of the lines that a judgement rests on, as measured: those whose removal moved it most.

    As many as the agent cites itself, at least one; none that moved it no further than asking the same again did.
    """
    ranked = sorted(found.alone, key=lambda label: (-found.alone[label].distance, label))
    moved = [label for label in ranked if found.alone[label].distance > (found.noise or 0.0)]
    return tuple(moved[: max(1, len(found.judged.chosen))])


def cited_judgements(state: AfterIntake, ledger: LedgerReader) -> list[Cited]:
    """The judgements that the result rests on and that cite: each agent's newest, the sanity-checker's of each source.

    One whose texts hide where its lines are is left out.
    """
    newest = {(opinion.agent, opinion.about): (opinion, cited) for opinion in state.opinions
              if (cited := opinion.cited(CITES)) is not None}  # fmt: skip
    found: dict[str, Cited] = {}
    for (agent, about), (opinion, cited) in newest.items():
        entries = ledger.lookup(opinion.calls[-1]), ledger.lookup(opinion.calls[0])
        if entries[0] is None or entries[1] is None:
            continue
        call, neutral = RecordedCall.of(entries[0]), RecordedCall.of(entries[1])
        template = call.steps()
        labels = "".join(next((s.labels for s in template if isinstance(s, Pick) and s.field == CITES), ()))
        lines = evidence_lines(call.prompt, labels)
        blank = evidence_lines(neutral.prompt, labels)
        ids = dict(zip(labels, opinion.choices[CITES], strict=False))
        if lines is None or blank is None or len(ids) != len(labels):
            continue
        fields = [step for step in template if isinstance(step, Choose)]
        asked = part_of(template, [step.field for step in fields])
        plain = part_of(template, [step.field for step in fields if step.unless is None])
        own = [field for field in _fields(plain) if field in neutral.choices]
        priors = part_of(template, own) if own else ()
        chosen = tuple(label for label, id in ids.items() if id in cited)
        found.setdefault(
            call.key, Cited(agent, about, call, neutral, lines, blank, ids, chosen, asked, plain, priors)
        )  # two sources with the same text are one question
    return list(found.values())


def choices_moved(template: Template, before: Choices, after: Choices) -> Moved:
    """What changed from one answer to another in the template's fields."""
    chosen = {one: (best(before[one]), best(after[one])) for one in _fields(template)}
    changed = {one: pair for one, pair in chosen.items() if pair[0] != pair[1]}
    return Moved(after, changed, distance(template, before, after))


def distance(template: Template, before: Choices, after: Choices) -> float:
    """Mean total variation distance (0 to 1) over the template's fields."""
    apart = [
        sum(abs(before[one].get(value, 0.0) - after[one].get(value, 0.0)) for value in {*before[one], *after[one]}) / 2
        for one in _fields(template)
    ]
    return sum(apart) / len(apart) if apart else 0.0


def _fields(template: Template) -> list[str]:
    return [step.field for step in template if isinstance(step, Choose)]

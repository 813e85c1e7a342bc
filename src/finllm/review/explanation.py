"""An explanation of a run, typed: its sentences, every removal behind them, the paired tests, and what was asked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict

from finllm.graphs.markdown import markdown_text
from finllm.graphs.report import Report
from finllm.memory.reading import LedgerReader, Use
from finllm.review.faithfulness import Faithfulness
from finllm.review.influence import Influence
from finllm.review.sign_test import sign_test
from finllm.review.story import Chapter, Story, markdown_chapter, shown
from finllm.scheduler.placement.task import key_of
from finllm.scheduler.record import Entry, EntryKind
from finllm.tools.evidence import Evidence

_NAMED = re.compile(r"\[(E[1-9][0-9]*)\]")
EXPLANATION = EntryKind("explanation")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Bound(_Frozen):
    """What an explanation may spend beside the run's own budget: wall-clock seconds, and calls to models."""

    seconds: float = 180.0
    calls: int = 400


class Removal(_Frozen):
    """A judgement asked again without one line. `distance`: total variation, 0 to 1, mean over fields.

    `cited`: by the agent itself; `measured`: cited in place of that, since the judgement rests on it.
    """

    agent: str
    about: str | None
    evidence: str
    cited: bool
    measured: bool = False
    changed: dict[str, tuple[str, str]]
    distance: float


class Pair(_Frozen):
    """Two removals of one judgement beside each other, the first of a line that is cited.

    `kind`: by the agent itself (`cited`), or in its place as measured (`mover`).

    `call` and `weights` say which question and which model; `changed`, `distance`: what each removal did.
    """

    kind: Literal["cited", "mover"]
    call: str
    weights: str
    agent: str
    evidence: tuple[str, str]
    changed: tuple[bool, bool]
    distance: tuple[float, float]


class Explanation(_Frozen):
    """What drove a run's result, what would flip it, who dissented, and whether its citations hold.

    `complete`: every question was answered. `calls`: the answers behind it, from models or the ledger. `evidence`: the
    rows that it adds to the run's own.
    """

    run_id: str
    title: str
    complete: bool
    calls: int
    bound: Bound
    chapters: tuple[Chapter, ...]
    removals: tuple[Removal, ...]
    pairs: tuple[Pair, ...]
    tested: dict[str, Faithfulness]
    evidence: tuple[Evidence, ...]

    def entry(self) -> Entry:
        """The row that puts it on record."""
        about = {"run": self.run_id}
        said = self.model_dump(mode="json")
        return Entry(key_of("explanation", about | said), EXPLANATION, "finllm", about, said)


def explanation_on_record(run_id: str, ledger: LedgerReader) -> Explanation | None:
    """The newest explanation of a run, or None."""
    return explanation_in(ledger.uses(run_id, EXPLANATION))


def explanation_in(uses: Iterable[Use]) -> Explanation | None:
    """The newest explanation among the uses of a run, or None."""
    found = [use for use in uses if use.entry.kind == EXPLANATION]
    return Explanation.model_validate(found[-1].entry.response) if found else None


def explanation_story(explanation: Explanation, report: Report) -> Story:
    """The explanation as a story of its own, the run's verdict first, with the evidence that it names."""
    named = {id for chapter in explanation.chapters for line in chapter.lines for id in _NAMED.findall(line)}
    done = "" if explanation.complete else "; not finished, see the end"
    return Story(
        run_id=explanation.run_id,
        title=f"Why: {report.title}",
        asked=f"Explained from {explanation.calls} answers{done}.",
        verdict=(f"Compliance: {report.ruled}. Text and measurements: {report.verdict}.", *report.summary),
        chapters=explanation.chapters,
        evidence=shown(row for row in (*report.evidence, *explanation.evidence) if row.id in named),
        report=report,
    )


def markdown_of(explanation: Explanation) -> str:
    """Its chapters and the rows that it adds, as Markdown behind a report's."""
    rows = [f"- {markdown_text(f'{id}: {value}, {what}, {entity}; {how}')}"
            for id, value, what, entity, _period, how in shown(explanation.evidence)]  # fmt: skip
    chapters = [markdown_chapter(chapter) for chapter in explanation.chapters]
    return "\n\n".join([*chapters, "\n".join(["## Evidence that this adds", "", *rows])]) + "\n"


def removals_of(found: Iterable[Influence]) -> tuple[Removal, ...]:
    return tuple(
        Removal(agent=one.judged.agent, about=one.judged.about, evidence=one.judged.ids[label],
                cited=label in one.judged.chosen, measured=label in one.measured, changed=dict(moved.changed),
                distance=moved.distance)
        for one in found
        for label, moved in one.alone.items()
    )  # fmt: skip


def pairs_of(found: Iterable[Influence]) -> tuple[Pair, ...]:
    """Every pair that was answered, of the agents' own citations and of the measured ones."""
    pairs: list[Pair] = []
    for one in found:
        asked = one.judged.call
        kinds = (("cited", one.judged.pairs, one.alone), ("mover", one.movers, one.again))
        for kind, labels, removed in kinds:
            for first, second in labels:
                if {first, second} <= removed.keys():
                    a, b = removed[first], removed[second]
                    pairs.append(Pair.model_validate(
                        {"kind": kind, "call": asked.key, "weights": asked.weights_sha256,
                         "agent": one.judged.agent, "evidence": (one.judged.ids[first], one.judged.ids[second]),
                         "changed": (bool(a.changed), bool(b.changed)), "distance": (a.distance, b.distance)}
                    ))  # fmt: skip
    return tuple(pairs)


def tested(pairs: Iterable[Pair], kind: Literal["cited", "mover"]) -> Faithfulness:
    """The paired test of one kind, each pair once."""
    once = {(one.call, one.evidence): one for one in pairs if one.kind == kind}.values()
    return Faithfulness(
        sign_test((float(one.changed[0]), float(one.changed[1])) for one in once),
        sign_test(one.distance for one in once),
    )


def all_on_record(ledger: LedgerReader, weights: Iterable[str], *, but: str) -> list[Pair]:
    """The pairs of every other run's newest explanation that these weights answered."""
    known = set(weights)
    told = (explanation_on_record(row.id, ledger) for row in ledger.runs() if row.id != but)
    return [pair for one in told if one for pair in one.pairs if pair.weights in known]

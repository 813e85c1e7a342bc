"""An explanation's sentences about the result: what drove it, what would flip it, who dissented; fixed wording.

Every number is an evidence row, and every sentence has passed the grounding guard.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping

from finllm.agents.narrative import Reading
from finllm.errors import GroundingError
from finllm.graphs.nodes.report import nothing_moved, summary_lines
from finllm.graphs.state import Finished, JudgedOpinion
from finllm.guardrails.grounding import ground
from finllm.review.whatif import Flip, Otherwise, Verdict, WhatIf
from finllm.tools.evidence import Evidence, Unit

NO_BEARING = (
    "No reading bears on the result: its shocks are the user's, or of the window that is replayed, or nothing was read."
)
NO_FLIP = (
    "No factor, read otherwise alone, flips whether the book loses, whether a limit is breached, or whether the run is "
    "blocked."
)
LEFT_OUT = "A sentence is left out here: the grounding guard did not let it pass."
_CHANGES: Mapping[tuple[Flip, bool], str] = {
    ("sign", True): "the book would lose",
    ("sign", False): "the book would not lose",
    ("breach", True): "a limit would be breached",
    ("breach", False): "no limit would be breached",
    ("block", True): "the run would be blocked",
    ("block", False): "the run would not be blocked",
}
_ORIGINS = {
    "user": "the user gave it",
    "judgement": "a person judged so, with a reason that is on record",
    "historical": "it is what happened over the window that is replayed",
    "model": "it stands for what was read",
    "table": "it stands for what was read, by the reviewed table of sizes",
    "completed": "it moves with the others, by their covariance",
}


class Teller:
    """Tells of a finished run. Rows for what it counts and computes are added to `table`, behind the run's own."""

    def __init__(self, state: Finished) -> None:
        self.state = state
        self.table = state.table()
        self._own = len(self.table)
        horizon = self.table[state.stress.horizon]
        self._as_of: dt.date = horizon.as_of
        self._period = horizon.period
        self._money: Unit = self.table[state.stress.total].unit

    @property
    def added(self) -> tuple[Evidence, ...]:
        return tuple(self.table)[self._own :]

    def add(self, value: float, unit: Unit, entity: str, what: str, formula: str) -> str:
        """A row of the explanation's own; its id."""
        return self.table.add(
            value, unit, entity=entity, what=what, period=self._period, as_of=self._as_of, formula=formula
        )

    def total(self, verdict: Verdict, how: str) -> str:
        return self.add(float(verdict.total), self._money, "book", f"P&L, {how}", "computed again by the tools")

    def say(self, sentence: str, quotes: Mapping[str, str] | None = None) -> str:
        """A sentence with its references filled in, each number beside its row; left out where it is not grounded."""
        try:
            return ground(sentence, self.table, quotes, cite=True)
        except GroundingError:
            return LEFT_OUT

    def line(self, id: str) -> str:
        """A line of evidence as a quote: what it says or measures, and its row."""
        row = self.table[id]
        text = row.value if isinstance(row.value, str) else f"{row.what}, {row.entity}"
        return f"{text if len(text) <= 80 else f'{text[:79]}…'} [{id}]"


def drove(teller: Teller, what_if: WhatIf, title: str) -> list[str]:
    """The P&L by factor, the shock behind each part, and the judgement that it rests on."""
    state, table = teller.state, teller.table
    shocks = [shock for shock in state.shocks if shock.refused is None]
    parts = {name: id for name, id in state.stress.by_factor.items() if table[id].value}
    whole = summary_lines(state.stress, table)[0].replace("«[[title]]»", "[[title]]")
    lines = [teller.say(whole, {"title": title})]
    for name, id in sorted(parts.items(), key=lambda part: -abs(float(table[part[1]].value))):
        shock = next((one for one in shocks if one.factor == name), None)
        behind = f", by a shock of [[{shock.move}]]: {_ORIGINS[shock.origin]}" if shock else ""
        lines.append(teller.say(f"Through [[{id}.entity]] it moves by [[{id}]]{behind}."))
        if shock and shock.origin in ("model", "table") and what_if.reading is not None:
            lines.append(_read(teller, name, what_if.reading))
    return lines if parts else [*lines, nothing_moved(applied=bool(shocks))]


def _read(teller: Teller, factor: str, reading: JudgedOpinion[Reading]) -> str:
    check = next(check for check in teller.state.checks if check.factor == factor)
    call = reading.judgement.factors[check.factor]
    direction, size = (
        teller.add(reading.opinion.choices[f"factors.{factor}.{field}"][value], "probability", factor,
                   f"probability of {field} {value}", f"call {reading.opinion.calls[-1][:12]}")
        for field, value in (("direction", call.direction), ("size", call.size))
    )  # fmt: skip
    return teller.say(
        f"{factor} was read [[direction]] with a probability of [[{direction}]] and [[size]] with [[{size}]]; the "
        "words of the sources say [[words]], past events [[past]]: [[support]].",
        {"direction": call.direction, "size": call.size, "words": check.words, "past": check.precedents,
         "support": check.support},
    )  # fmt: skip


def by_reading(teller: Teller, what_if: WhatIf) -> list[str]:
    """Factors which, read otherwise, flip the verdict: the most probable misreading first."""
    if not what_if.bears:
        return [NO_BEARING]
    found = [one for one in what_if.otherwise() if what_if.base.flips(one.verdict)]
    ranked = sorted(found, key=lambda one: -(one.probability or 0.0))
    return [_otherwise(teller, one, what_if.base) for one in ranked] or [NO_FLIP]


def _otherwise(teller: Teller, one: Otherwise, base: Verdict) -> str:
    how = "a size that nobody was asked for"
    if one.probability is not None:
        formula = "the probabilities of the reading"
        chance = teller.add(one.probability, "probability", one.factor, f"probability of {one.would_be}", formula)
        how = f"{'the next most probable reading' if one.next else 'a less probable reading'} with [[{chance}]]"
    total = teller.total(one.verdict, f"{one.factor} read {one.would_be}")
    return teller.say(
        f"Had {one.factor} been read [[would]] and not [[was]] ({how}), the book would move by [[{total}]]: "
        f"{changes(base, one.verdict)}.",
        {"would": one.would_be, "was": one.was},
    )


def by_shock(teller: Teller, what_if: WhatIf) -> list[str]:
    """The smallest change of one factor's move that flips the verdict, the smallest of all first."""
    lines: list[str] = []
    for step in what_if.smallest_steps():
        size = teller.add(step.sigmas, "sigma", step.factor, "smallest change of the move that flips the verdict",
                          "tried in steps, all else unchanged")  # fmt: skip
        total = teller.total(step.verdict, f"{step.factor} moved further")
        lines.append(teller.say(f"{step.factor} by [[{size}]] further: the book would move by [[{total}]]: "
                                f"{changes(what_if.base, step.verdict)}."))  # fmt: skip
    return lines


def changes(base: Verdict, verdict: Verdict) -> str:
    """What flips from one verdict to the other, in words."""
    now = {"sign": verdict.total < 0, "breach": bool(verdict.breached), "block": verdict.compliance == "block"}
    return " and ".join(_CHANGES[flip, now[flip]] for flip in base.flips(verdict))


def dissented(teller: Teller) -> list[str]:
    """Who disagreed with what counted, who abstained, and which sources the checks do not call credible."""
    report = teller.state.report
    abstained = {agent.agent: agent.reason for agent in report.agents if agent.status == "abstained"}
    doubted = [source for source in teller.state.sources if source.verdict != "credible"]
    return [*_spoken(teller, (
        *(("[[a]] on [[b]] said [[c]]; what counted: [[d]].", (d.who, d.about, d.said, d.instead_of))
          for d in report.dissent),
        *(("[[a]] abstained: [[b]].", (who, why or "no reason given")) for who, why in abstained.items()),
        *(("The checks call [[a]]: [[b]].", (s.id, s.left_out or s.verdict)) for s in doubted),
    ))]  # fmt: skip


def _spoken(teller: Teller, rows: Iterable[tuple[str, tuple[str, ...]]]) -> Iterable[str]:
    for sentence, words in rows:
        yield teller.say(sentence, dict(zip("abcd", words, strict=False)))

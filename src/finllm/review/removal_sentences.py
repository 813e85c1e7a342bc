"""The sentences of an explanation about evidence: what removing it changes, and whether it was cited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finllm.errors import InputError
from finllm.review.explanation import Bound
from finllm.review.faithfulness import Faithfulness, Finding, finding
from finllm.review.influence import Influence, Moved
from finllm.review.reasking import Asking
from finllm.review.result_sentences import Teller, changes
from finllm.review.sign_test import SignTest
from finllm.review.whatif import WhatIf, calls_of
from finllm.tools.evidence import Unit

FACTORS_ASKED = "factors.EQUITY_US.direction"
"""A judgement of narrative without this field was asked of the event alone; channels told the factors."""
MEASURED = (
    "Each judgement is asked again without a line of its evidence. The lines whose removal moved it most are cited in "
    "place of those that the agent named itself. Each is paired with the line nearest to it in length that is not "
    "cited, and both are removed where that was not measured: on another precision, with the evidence reversed. The "
    "agents' own citations are paired likewise, and removed as the agents were asked. A pair is decided by which "
    "removal did more; the share is of decided pairs, within its exact interval."
)  # fmt: skip
_SHOWS: Mapping[Finding, str] = {
    "faithful": "faithful",
    "not faithful": "not faithful, the interval does not exclude chance",
    "the reverse of faithful": "the reverse of faithful",
    "not tested": "not tested, every pair ties",
}
_NAMES = "abcdefghijklmnopqrstuvwxyz"


def by_evidence(teller: Teller, found: Sequence[Influence], what_if: WhatIf) -> list[str]:
    """Removals that change a chosen value; of the reading, with what follows for the book, which comes first."""
    ordered = sorted(found, key=lambda one: one.judged.agent != "narrative")
    return [
        _without(teller, one, label, moved, what_if)
        for one in ordered
        for label, moved in one.alone.items()
        if moved.changed
    ]


def _without(teller: Teller, one: Influence, label: str, moved: Moved, what_if: WhatIf) -> str:
    cited = "cited" if label in one.measured else "not cited"
    quotes = {"line": teller.line(one.judged.ids[label])}
    parts: list[str] = []
    for name, (field, (before, after)) in zip(_NAMES, moved.changed.items(), strict=False):
        spoken = field.removeprefix("factors.").removeprefix("rules.").replace(".", " ")
        quotes |= {name: spoken, f"{name}_is": after, f"{name}_was": before}
        parts.append(f"[[{name}]] [[{name}_is]] for [[{name}_was]]")
    start = f"Without [[line]], {cited}, the {one.judged.agent} agent says {', '.join(parts)}"
    return teller.say(f"{start}{_follows(teller, one, label, moved, what_if)}.", quotes)


def _follows(teller: Teller, one: Influence, label: str, moved: Moved, what_if: WhatIf) -> str:
    if one.judged.agent != "narrative" or what_if.reading is None:
        return ""
    row = one.judged.ids[label]
    source = next((source.id for source in teller.state.sources if source.evidence == row), None)
    try:
        asked = FACTORS_ASKED in moved.choices
        verdict = what_if.read(calls_of(moved.choices), without=source) if asked else what_if.unheard(source)
    except InputError:
        return "; there is too little history to say what follows"
    if verdict == what_if.base:
        return "; the book would move as it does"
    flip = changes(what_if.base, verdict)
    total = teller.total(verdict, f"read without {row}")
    return f"; the book would move by [[{total}]]" + (f": {flip}" if flip else "")


def cited(teller: Teller, found: Sequence[Influence]) -> list[str]:
    """For each judgement what it rests on, as measured, and what its agent had cited itself."""
    return [_cited(teller, one) for one in found if one.alone]


def _cited(teller: Teller, one: Influence) -> str:
    agent = one.judged.agent
    about = " on [[about]]" if one.judged.about else ""
    quotes = {"about": one.judged.about or ""}
    rests, own = (_lines(teller, one, labels, quotes) for labels in (one.measured, one.judged.chosen))
    top = max(one.alone, key=lambda label: one.alone[label].distance)
    far, still = (
        teller.add(round(distance, 3), "ratio", agent, what, "total variation distance, mean over fields")
        for distance, what in (
            (one.alone[top].distance, "how far a removal moved it"),
            (one.noise or 0.0, "how far asking again moved it"),
        )
    )
    on = f"rests on {rests}" if one.measured else "rests on no line alone"
    same = "which the agent named itself" if set(one.measured) == set(one.judged.chosen) else f"it named {own} itself"
    return teller.say(
        f"The {agent} agent{about} {on}; {same}; a removal moved the {agent} agent by up to [[{far}]]; asked the same "
        f"again, the {agent} agent moved by [[{still}]].",
        quotes,
    )


def _lines(teller: Teller, one: Influence, labels: Sequence[str], quotes: dict[str, str]) -> str:
    """References to lines, whose texts are put under `quotes`."""
    named = {f"line_{label.lower()}": teller.line(one.judged.ids[label]) for label in labels}
    quotes |= named
    return ", ".join(f"[[{name}]]" for name in named) or "nothing"


def faithful(teller: Teller, tests: Mapping[str, Faithfulness]) -> list[str]:
    """Each paired test: in how many pairs the removal did more, the share with its interval, and what that shows."""
    return [
        line
        for what, one in tests.items()
        for line in (
            _tested(teller, what, "changed a chosen value", one.top),
            _tested(teller, what, "moved the probabilities", one.odds),
        )
    ]


def _tested(teller: Teller, what: str, did: str, test: SignTest) -> str:
    def add(value: float, unit: Unit, name: str) -> str:
        return teller.add(value, unit, what, f"{name}: {did}", "paired removals")

    more, less, ties = (add(count, "count", f"pairs, {name}") for count, name in
                        ((test.more, "its own more"), (test.less, "the other more"), (test.ties, "ties")))  # fmt: skip
    told = f"Removing {what} {did} more in [[{more}]] pairs, less in [[{less}]], alike in [[{ties}]]"
    if test.share is None:
        return teller.say(f"{told}: {_SHOWS['not tested']}.")
    share, low, high = (add(value, "probability", name) for value, name in
                        ((test.share, "share"), (test.low, "share, from"), (test.high, "share, to")))  # fmt: skip
    return teller.say(f"{told}; {what} have a share of [[{share}]] between [[{low}]] and [[{high}]]: "
                      f"{_SHOWS[finding(test)]}.")  # fmt: skip


def asked(teller: Teller, asking: Asking, found: Sequence[Influence], bound: Bound) -> list[str]:
    """How many answers there are and within which bound; and what has no answer, and why."""
    done = teller.add(asking.answers, "count", "explanation", "answers", "rows of the ledger")
    lines = [
        teller.say(
            f"The explanation rests on [[{done}]] answers, all on record; it may spend [[bound]], beside the run's own "
            "budget.",
            {"bound": f"{bound.seconds:g} s and {bound.calls} calls"},
        )
    ]
    if missing := sum(one.unanswered for one in found):
        count = teller.add(missing, "count", "explanation", "questions without an answer", "counted")
        why = "; ".join((*(["the bound was reached"] if asking.left else []), *sorted(asking.failures)))
        lines.append(
            teller.say(
                f"The explanation is not finished: [[{count}]] questions have no answer: [[why]]. Ask for it again to "
                "go on from there.",
                {"why": why},
            )
        )
    return lines

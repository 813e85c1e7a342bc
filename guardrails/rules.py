"""The rule book: plain, versioned rules, each a pure check whose finding compliance reads and may not overrule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

RULE_BOOK_VERSION = "2"

JudgedRule = Literal["limits", "restricted", "lookahead", "approval", "support"]
"""The rules that the compliance agent reads and says its own of; the others are arithmetic."""
RuleId = Literal[JudgedRule, "completeness", "asked"]
"""The rules, in the order in which they are told:

`limits`: no limit may be breached, or stay unchecked (flag). `restricted`: the book may not hold a restricted name
(block). Either is `not checked` where there is no limit, or no restricted name, to hold the book against.
`lookahead`: no source published after `as_of` may be used, and no sentence that tells of days after it (flag when one
was refused or cut, block when a source was used).
`approval`: a signed review of the scenario as it is must be on record (flag; see `guardrails.approval`).
`support`: every claim needs evidence (flag when a claim was
withheld, block when one was used without). `completeness`: the result must be about enough of the book (flag, or
block where the settings say so). `asked`: every agent must have been asked; told only of a run whose budget did not
reach for some, after the compliance agent itself had its turn (flag).
"""
RuleVerdict = Literal["pass", "flag", "block"]
FindingVerdict = Literal[RuleVerdict, "not checked"]
"""What a rule says; `not checked` where it had nothing to look at, which is no pass."""


class Finding(BaseModel):
    """What a rule found. `because` are evidence ids; `what` holds no digits of its own."""

    model_config = ConfigDict(frozen=True)

    rule: RuleId
    version: str
    verdict: FindingVerdict
    what: str
    because: tuple[str, ...] = ()


@dataclass(frozen=True)
class RuleFacts:
    """What the rules look at. `breaches` holds (name, evidence ids); `limited`: whether there is a limit at all.

    `left_out` names what keeps the result from being about the whole book, None where it is; `measured` are the
    evidence ids of the coverage, and `block_incomplete` says that a gap blocks.
    """

    breaches: Sequence[tuple[str, tuple[str, ...]]]
    restricted_held: Sequence[str]
    sources_refused: Sequence[str]
    sources_used_late: Sequence[str]
    approved_by: str | None
    claims_withheld: Sequence[str]
    claims_unsupported: Sequence[str]
    sources_cut: Sequence[str] = ()
    limited: bool = True
    restricting: bool = True
    unchecked: Sequence[str] = ()
    left_out: Sequence[str] | None = None
    measured: tuple[str, ...] = ()
    block_incomplete: bool = False


def check_rules(facts: RuleFacts) -> list[Finding]:
    """One finding per rule but `asked`, in the order of `RuleId`."""
    cited = tuple(id for _name, ids in facts.breaches for id in ids)
    return [
        _limits(facts, cited),
        _restricted(facts),
        _lookahead(facts),
        _finding(
            "approval",
            "pass" if facts.approved_by else "flag",
            "the scenario was approved" if facts.approved_by else "nobody approved the scenario",
        ),
        _finding(
            "support",
            _worse(facts.claims_unsupported, facts.claims_withheld),
            _sorted_out("claims without support", facts.claims_unsupported, "withheld", facts.claims_withheld),
        ),
        _completeness(facts),
    ]


def check_asked(short: Sequence[str]) -> list[Finding]:
    """The rule over those agents for whom the budget did not reach; none where it did."""
    return [_finding("asked", "flag", _listed("agents not asked, over the budget", short))] if short else []


def _lookahead(facts: RuleFacts) -> Finding:
    said = _sorted_out("sources published after as_of", facts.sources_used_late, "refused", facts.sources_refused)
    if facts.sources_cut:
        said = f"{said}; sentences that tell of later days, cut from: {', '.join(facts.sources_cut)}"
    return _finding("lookahead", _worse(facts.sources_used_late, [*facts.sources_refused, *facts.sources_cut]), said)


def _limits(facts: RuleFacts, cited: tuple[str, ...]) -> Finding:
    if not facts.limited:
        return _finding("limits", "not checked", "there are no limits to check")
    said = [_listed("limits breached", [name for name, _ids in facts.breaches])]
    said += [_listed("limits not checked", facts.unchecked)] if facts.unchecked else []
    return _finding("limits", "flag" if facts.breaches or facts.unchecked else "pass", "; ".join(said), cited)


def _restricted(facts: RuleFacts) -> Finding:
    if not facts.restricting:
        return _finding("restricted", "not checked", "no names are restricted")
    said = _listed("restricted names held", facts.restricted_held)
    return _finding("restricted", "block" if facts.restricted_held else "pass", said)


def _completeness(facts: RuleFacts) -> Finding:
    if facts.left_out is None:
        return _finding("completeness", "pass", "enough of the book is covered", facts.measured)
    said = f"too little of the book is covered: {', '.join(facts.left_out)}"
    return _finding("completeness", "block" if facts.block_incomplete else "flag", said, facts.measured)


def worst(verdicts: Sequence[FindingVerdict]) -> RuleVerdict:
    """The gravest verdict of the rules that were checked; `pass` for none."""
    return _worse([v for v in verdicts if v == "block"], [v for v in verdicts if v == "flag"])


def _finding(rule: RuleId, verdict: FindingVerdict, what: str, because: tuple[str, ...] = ()) -> Finding:
    return Finding(rule=rule, version=RULE_BOOK_VERSION, verdict=verdict, what=what, because=because)


def _worse(blocking: Sequence[str], flagging: Sequence[str]) -> RuleVerdict:
    if blocking:
        return "block"
    return "flag" if flagging else "pass"


def _listed(what: str, names: Sequence[str]) -> str:
    return f"{what}: {', '.join(names)}" if names else f"no {what}"


def _sorted_out(what: str, used: Sequence[str], kept_out: str, names: Sequence[str]) -> str:
    """Names by what became of them, since the verdict turns on it."""
    parts = [f"{became}: {', '.join(those)}" for became, those in (("used", used), (kept_out, names)) if those]
    return f"{what}, {'; '.join(parts)}" if parts else f"no {what}"

"""The rule book: five plain, versioned rules, each a pure check whose finding compliance reads and may not overrule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

RULE_BOOK_VERSION = "1"

RuleId = Literal["limits", "restricted", "lookahead", "approval", "support"]
"""The rules, in the order in which they are told:

`limits`: no loss limit may be breached (flag). `restricted`: the book may not hold a restricted name (block).
`lookahead`: no source published after `as_of` may be used (flag when one was refused, block when one was used).
`approval`: the scenario must have been approved (flag). `support`: every claim needs evidence (flag when a claim was
withheld, block when one was used without).
"""
RuleVerdict = Literal["pass", "flag", "block"]


class Finding(BaseModel):
    """What a rule found. `because` are evidence ids; `what` holds no digits of its own."""

    model_config = ConfigDict(frozen=True)

    rule: RuleId
    version: str
    verdict: RuleVerdict
    what: str
    because: tuple[str, ...] = ()


@dataclass(frozen=True)
class RuleFacts:
    """What the rules look at. Each list holds (name, evidence ids)."""

    breaches: Sequence[tuple[str, tuple[str, ...]]]
    restricted_held: Sequence[str]
    sources_refused: Sequence[str]
    sources_used_late: Sequence[str]
    approved_by: str | None
    claims_withheld: Sequence[str]
    claims_unsupported: Sequence[str]


def check_rules(facts: RuleFacts) -> list[Finding]:
    """One finding per rule, in the order of `RuleId`."""
    cited = tuple(id for _name, ids in facts.breaches for id in ids)
    return [
        _finding(
            "limits",
            "flag" if facts.breaches else "pass",
            _listed("limits breached", [name for name, _ids in facts.breaches]),
            cited,
        ),
        _finding(
            "restricted",
            "block" if facts.restricted_held else "pass",
            _listed("restricted names held", facts.restricted_held),
        ),
        _finding(
            "lookahead",
            _worse(facts.sources_used_late, facts.sources_refused),
            _sorted_out("sources published after as_of", facts.sources_used_late, "refused", facts.sources_refused),
        ),
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
    ]


def worst(verdicts: Sequence[RuleVerdict]) -> RuleVerdict:
    """The gravest verdict; `pass` for none."""
    return _worse([v for v in verdicts if v == "block"], [v for v in verdicts if v == "flag"])


def _finding(rule: RuleId, verdict: RuleVerdict, what: str, because: tuple[str, ...] = ()) -> Finding:
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

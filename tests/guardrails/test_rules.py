"""The rule book: what each of the five rules passes, flags and blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from finllm.guardrails.rules import RULE_BOOK_VERSION, Finding, RuleFacts, RuleId, check_asked, check_rules, worst

CLEAN = RuleFacts(
    breaches=(),
    restricted_held=(),
    sources_refused=(),
    sources_used_late=(),
    approved_by="Risk committee",
    claims_withheld=(),
    claims_unsupported=(),
)


def finding(rule: str, **facts: Any) -> Finding:
    return next(found for found in check_rules(replace(CLEAN, **facts)) if found.rule == rule)


def test_a_clean_run_passes_every_rule_once_and_in_order() -> None:
    findings = check_rules(CLEAN)
    unasked = check_asked(["narrative", "validator"])
    assert tuple(found.rule for found in (*findings, *unasked)) == get_args(RuleId)
    assert {found.verdict for found in findings} == {"pass"}
    assert {found.version for found in (*findings, *unasked)} == {RULE_BOOK_VERSION}
    assert [(one.verdict, "narrative, validator" in one.what) for one in unasked] == [("flag", True)]
    assert check_asked([]) == [], "nothing is said of a run whose budget did reach"


@pytest.mark.parametrize(
    ("rule", "facts", "verdict", "named"),
    [
        ("limits", {"breaches": [("OIL_WTI (loss_by_factor)", ("E7", "E9"))]}, "flag", "OIL_WTI"),
        ("restricted", {"restricted_held": ["RUSAL"]}, "block", "RUSAL"),
        ("lookahead", {"sources_refused": ["late-1"]}, "flag", "refused: late-1"),
        ("lookahead", {"sources_used_late": ["late-2"]}, "block", "used: late-2"),
        (
            "lookahead",
            {"sources_refused": ["late-1"], "sources_used_late": ["late-2"]},
            "block",
            "used: late-2; refused: late-1",
        ),
        ("approval", {"approved_by": None}, "flag", "nobody"),
        ("approval", {"approved_by": ""}, "flag", "nobody"),
        ("support", {"claims_withheld": ["GOLD up"]}, "flag", "withheld: GOLD up"),
        ("support", {"claims_unsupported": ["VIX up"]}, "block", "used: VIX up"),
    ],
)
def test_what_breaks_a_rule_is_named_and_breaks_no_other(
    rule: str, facts: dict[str, Any], verdict: str, named: str
) -> None:
    found = finding(rule, **facts)
    assert found.verdict == verdict
    assert named in found.what
    others = [other for other in check_rules(replace(CLEAN, **facts)) if other.rule != rule]
    assert {other.verdict for other in others} == {"pass"}


def test_a_breach_cites_the_rows_of_the_loss_and_of_the_limit() -> None:
    assert finding("limits", breaches=[("A", ("E1", "E2")), ("B", ("E3", "E4"))]).because == ("E1", "E2", "E3", "E4")


def test_a_finding_s_own_words_carry_no_digits() -> None:
    for found in check_rules(CLEAN):
        assert not any(character.isdigit() for character in found.what)


def test_the_worst_verdict_decides() -> None:
    assert worst([]) == "pass"
    assert worst(["pass", "flag", "pass"]) == "flag"
    assert worst(["flag", "block", "pass"]) == "block"

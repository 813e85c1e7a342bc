"""What two runs differ in, and what that changed: inputs, prompts, weights, placements, judgements; then the result."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import JsonValue

from finllm.errors import InputError
from finllm.graphs.basis import Standing
from finllm.graphs.report import Figure, Report
from finllm.memory.entries import PersonsAnswer, RecordedCall, RecordedPlacement
from finllm.memory.reading import LedgerReader, RunRow, Use
from finllm.review.influence import NODE
from finllm.review.odds import begun_with, calibrated
from finllm.tools.evidence import show

MISSING = "—"


@dataclass(frozen=True)
class Change:
    """One thing that differs. `first`, `second`: in words; `delta`: second less first, where both are numbers."""

    what: str
    first: str
    second: str
    delta: str | None = None


@dataclass(frozen=True)
class Diff:
    """Two runs beside each other. Empty tuples say that nothing differs there."""

    runs: tuple[str, str]
    inputs: tuple[Change, ...]
    prompts: tuple[Change, ...]
    weights: tuple[Change, ...]
    placements: tuple[Change, ...]
    judgements: tuple[Change, ...]
    result: tuple[Change, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def diff_runs(first: str, second: str, ledger: LedgerReader) -> Diff:
    """Compare two runs from their records. Errors: InputError for an unknown run."""
    rows = _row(first, ledger), _row(second, ledger)
    uses = tuple([use for use in ledger.uses(run) if use.node != NODE] for run in (first, second))
    stood = _standing(uses[0]), _standing(uses[1])
    return Diff(
        (first, second),
        inputs=(*_changes(*(flat(row.request) for row in rows)), *_changes(*(one.get("data", {}) for one in stood))),
        prompts=_changes(*(one.get("prompts", {}) for one in stood)),
        weights=_changes(*(one.get("weights", {}) for one in stood)),
        placements=_changes(*(_placements(used) for used in uses)),
        judgements=_changes(*(_judgements(used) for used in uses)),
        result=_results(*(row.result for row in rows)),
    )  # fmt: skip


def diff_story(diff: Diff) -> str:
    """The comparison as text: the result first, then what differs behind it."""
    lines = [f"{diff.runs[0]} against {diff.runs[1]}", ""]
    parts = (("What that changed in the result", diff.result), ("Inputs", diff.inputs), ("Prompts", diff.prompts),
             ("Weights", diff.weights), ("Placements", diff.placements), ("Judgements", diff.judgements))  # fmt: skip
    for title, changes in parts:
        lines += [title, *([f"  {told_change(change)}" for change in changes] or ["  nothing"]), ""]
    return "\n".join(lines).rstrip() + "\n"


def told_change(change: Change) -> str:
    """A change in one line."""
    moved = f" ({change.delta})" if change.delta else ""
    return f"{change.what}: {change.first} → {change.second}{moved}"


def _row(run_id: str, ledger: LedgerReader) -> RunRow:
    row = ledger.run(run_id)
    if row is None:
        raise InputError(f"no run {run_id!r}", fix="'finllm runs list' shows those on record")
    return row


def _standing(uses: Iterable[Use]) -> dict[str, dict[str, str]]:
    """Digests by part, of the last time the run was started or resumed; empty for a run that kept none."""
    found = [use.entry.response for use in uses if use.entry.kind == "inputs"]
    if not found:
        return {}
    stood = Standing.model_validate(found[-1])
    weights = {
        f"{one.offer['tier']} {name}": str(one.offer[name])
        for one in stood.weights
        for name in ("name", "precision", "weights_sha256", "build", "context")
    }
    for card in (stood.card, stood.pruned):
        if card is not None:
            weights[f"calibration of {card.name}"] = card.calibration_sha256
    return {"prompts": stood.prompts, "data": stood.data, "weights": weights}


def flat(value: JsonValue, path: str = "") -> dict[str, str]:
    """A JSON value as dotted paths. Lists of named things go by their name, so that an insertion shifts nothing."""
    if isinstance(value, dict):
        return {k: v for name, part in value.items() for k, v in flat(part, f"{path}.{name}" if path else name).items()}
    if isinstance(value, list):
        named = [one.get("id", one.get("factor")) if isinstance(one, dict) else None for one in value]
        labels = named if all(named) and len(set(map(str, named))) == len(named) else range(len(value))
        return {
            k: v for label, part in zip(labels, value, strict=True) for k, v in flat(part, f"{path}[{label}]").items()
        }
    return {path: value if isinstance(value, str) else json.dumps(value)}


def _placements(uses: Iterable[Use]) -> dict[str, str]:
    found: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for use in uses:
        if use.entry.kind != "placement":
            continue
        placed = RecordedPlacement.of(use.entry)
        what = f"{use.node}, {placed.agent}"
        seen[what] += 1
        refused = f" ({placed.refused_words})" if placed.refused else ""
        found[f"{what} #{seen[what]}"] = f"{placed.chosen}{refused}"
    return found


def _judgements(uses: Iterable[Use]) -> dict[str, str]:
    """Each judgement's fields with the probability of what was chosen; citations by their letters in the prompt."""
    uses = list(uses)
    begun = begun_with(uses)
    found: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for use in uses:
        if use.entry.kind == "human":
            found["a person answered"] = PersonsAnswer.of(use.entry).answer
        if use.entry.kind != "call" or not (call := RecordedCall.of(use.entry)).judges:
            continue
        what = f"{use.node}, {call.agent}"
        seen[what] += 1
        odds = calibrated(call, begun)
        for field, value in flat(json.loads(call.text)).items():
            chance = max(odds[field].values()) if field in odds else None
            found[f"{what} #{seen[what]} {field}"] = value + (f" ({chance:.0%})" if chance is not None else "")
    return found


def _results(first: Mapping[str, Any] | None, second: Mapping[str, Any] | None) -> tuple[Change, ...]:
    told = _told_result(first), _told_result(second)
    found: list[Change] = []
    for change in _changes(*told):
        one, other = (figures.get(change.what) for figures in (_figures(first), _figures(second)))
        moved = show(other.value - one.value, one.unit) if one and other and one.unit == other.unit else None
        found.append(Change(change.what, change.first, change.second, moved))
    return tuple(found)


def _figures(result: Mapping[str, Any] | None) -> dict[str, Figure]:
    if result is None:
        return {}
    report = Report.model_validate(result)
    named = {"total": report.total, "book value": report.book_value}
    if report.total_share is not None:
        named["share of the book"] = report.total_share
    if report.gross_value is not None:
        named["gross value"] = report.gross_value
    if report.interval is not None:
        named |= {"interval, low": report.interval[0], "interval, high": report.interval[1]}
    if report.var_975_1d is not None:
        named["one-day VaR"] = report.var_975_1d
    for cut, figures in (("factor", report.by_factor), ("sector", report.by_sector), ("position", report.by_position)):
        named |= {f"P&L by {cut} {name}": figure for name, figure in figures.items()}
    return named | {f"shock {row.factor}": row.move for row in report.shocks}


def _told_result(result: Mapping[str, Any] | None) -> dict[str, str]:
    if result is None:
        return {"report": "none: the run did not end"}
    report = Report.model_validate(result)
    told = {name: str(figure) for name, figure in _figures(result).items()}
    told |= {"text and measurements": report.verdict, "compliance": report.compliance, "status": report.status}
    told |= {f"rule {one.rule}": f"{one.verdict}: {one.what}" for one in report.findings}
    told |= {f"event, {name}": value for name, value in (report.event or {}).items()}
    told |= {f"{one.who} on {one.about}": f"{one.said}, instead of {one.other_side}" for one in report.dissent}
    return told | {f"blocked: {line}": "yes" for line in report.blocked}


def _changes(first: Mapping[str, str], second: Mapping[str, str]) -> tuple[Change, ...]:
    names = list(dict.fromkeys((*first, *second)))
    return tuple(
        Change(name, first.get(name, MISSING), second.get(name, MISSING))
        for name in names
        if first.get(name) != second.get(name)
    )

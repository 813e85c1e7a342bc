"""The scorecard's tables: accuracy and macro-F1 by agent, hard cases, calibration and cost, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.scorecard.columns import ABSTAINED, STEERED, Case, Column, group_of, pairs
from finllm.evaluation.scores import calibration_error, score

HARD = ("stance", "directions", STEERED)


def table(cases: Sequence[Case], columns: Sequence[Column]) -> list[str]:
    """Accuracy and macro-F1 by group and contender; the number of labelled fields once per row."""
    groups = dict.fromkeys(group_of(case, name) for case in cases for name in case.asked.labels)
    rows = []
    for group in groups:
        found = [[(e, s or ABSTAINED) for _c, g, e, s, _o in pairs(cases, column) if g == group] for column in columns]
        cells = []
        for one in found:
            if not one:
                cells.append("–")
                continue
            scores = score([e for e, _ in one], [s for _, s in one])
            cells.append(f"{scores.accuracy:.3f} / {scores.macro_f1:.3f}")
        rows.append([group, str(max(map(len, found))), *cells])
    return markdown(["accuracy / macro-F1", "n", *(column.name for column in columns)], rows)


def slices(cases: Sequence[Case], columns: Sequence[Column]) -> list[str]:
    """Accuracy by kind of hard case, of stance and directions together; and hand-written against generated."""
    kinds = sorted({str(case.asked.slice) for case in cases if case.asked.slice})
    parts: list[tuple[str, Callable[[Case], bool]]] = [
        (kind, lambda c, kind=kind: c.asked.slice == kind) for kind in kinds
    ]
    parts += [("hand-written", lambda c: c.asked.handwritten), ("generated", lambda c: not c.asked.handwritten)]
    rows = []
    for name, holds in parts:
        found = [[e == s for c, g, e, s, _o in pairs(cases, column) if holds(c) and g in HARD]
                 for column in columns]  # fmt: skip
        if max(map(len, found)):
            cells = [f"{sum(one) / len(one):.3f}" if one else "–" for one in found]
            rows.append([name, str(max(map(len, found))), *cells])
    return markdown(["accuracy", "n", *(column.name for column in columns)], rows)


def calibration(cases: Sequence[Case], columns: Sequence[Column]) -> list[str]:
    """Expected calibration error by group, of the columns that give odds."""
    columns = [column for column in columns if column.odds]
    groups = dict.fromkeys(group_of(case, name) for case in cases for name in case.asked.labels)
    rows = []
    for group in groups:
        cells = []
        for column in columns:
            found = [(max(o.values()), s == e) for _c, g, e, s, o in pairs(cases, column) if g == group and o]
            cells.append(f"{calibration_error([p for p, _ in found], [r for _, r in found]):.3f}" if found else "–")
        rows.append([group, *cells])
    return markdown(["expected calibration error", *(column.name for column in columns)], rows)


def costs(columns: Sequence[Column]) -> list[str]:
    rows = []
    for column in columns:
        if column.seconds:
            fields = sum(len(said) for said in column.said)
            gone = sum(value == ABSTAINED for said in column.said for value in said.values())
            rows.append([column.name, str(len(column.said)), f"{1000 * column.seconds / len(column.said):.0f}",
                         f"{gone / max(fields, 1):.1%}"])  # fmt: skip
    return markdown(["model", "judgements", "ms of model time per judgement", "abstained"], rows)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows)]


def figures(expected: Sequence[str], said: Sequence[str]) -> list[str]:
    found = score(expected, said)
    return [str(found.n), f"{found.weighted_f1:.3f}", f"{found.accuracy:.3f}", f"{found.macro_f1:.3f}"]

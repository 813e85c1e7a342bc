"""What a session answers to a line: figures of the version beside those of the one before, and the lines to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from finllm.plain_text import clean
from finllm.tools.evidence import show

if TYPE_CHECKING:
    from finllm.errors import FinllmError
    from finllm.graphs.figures import Figure
    from finllm.graphs.report import Report


@dataclass(frozen=True)
class Figures:
    """What is compared of a version: money in `currency`. `rows`: the evidence row of each, by the same names."""

    total: float
    by_factor: Mapping[str, float]
    by_position: Mapping[str, float]
    currency: str
    compliance: str
    breaches: tuple[str, ...]
    interval: tuple[float, float] | None = None
    level: float | None = None
    rows: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, report: Report) -> Figures:
        named: dict[str, Figure] = {"total": report.total}
        named |= {f"factor {name}": one for name, one in report.by_factor.items()}
        if report.interval is not None:
            named |= {"low": report.interval[0], "high": report.interval[1]}
        return cls(
            report.total.value, {name: one.value for name, one in report.by_factor.items()},
            {name: one.value for name, one in report.by_position.items()}, report.currency, report.compliance,
            report.breaches, None if report.interval is None else (report.interval[0].value, report.interval[1].value),
            report.interval_level.value if report.interval_level else None,
            {name: one.evidence for name, one in named.items()},
        )  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """The answer to a line.

    `version`: the one in hand afterwards, `run` its run. `figures`: what it found, `base` those of the version that it
    is held against. `asked`, `reused`: model calls that were made and that the ledger answered. `said`: lines for a
    person; `command`: what repeats the answer outside the session. `data`: the answer of a question, typed as JSON.
    """

    verb: str
    line: str
    version: str
    run: str
    took_s: float
    figures: Figures | None = None
    base: Figures | None = None
    base_version: str | None = None
    asked: int = 0
    reused: int = 0
    said: tuple[str, ...] = ()
    command: str | None = None
    data: Mapping[str, Any] | None = None
    error: FinllmError | None = None
    provisional: bool = False

    def _repr_html_(self) -> str:
        from finllm.sessions.notebook import answer_html

        return answer_html(self)

    def to_json(self) -> dict[str, Any]:
        """One object a verb, as `--script --json` prints it."""
        one, base = self.figures, self.base
        found: dict[str, Any] = {
            "verb": self.verb, "line": self.line, "version": self.version, "run": self.run,
            "total": one.total if one else None, "by_factor": dict(one.by_factor) if one else {},
            "currency": one.currency if one else None, "interval": list(one.interval) if one and one.interval else None,
            "compliance": one.compliance if one else None, "breaches": list(one.breaches) if one else [],
            "base": {"version": self.base_version, "total": base.total, "by_factor": dict(base.by_factor)}
            if base else None,
            "took_s": round(self.took_s, 3), "asked": self.asked, "reused": self.reused,
            "said": list(self.said), "command": self.command,
        }  # fmt: skip
        if self.provisional:
            found["provisional"] = True
        if self.data is not None:
            found["data"] = self.data
        if self.error is not None:
            found |= self.error.to_json()
        return found


def money(value: float, currency: str) -> str:
    """An amount as everywhere: `-512,300 USD`."""
    return show(value, currency.lower())  # pyright: ignore[reportArgumentType]


def beside(figures: Figures, base: Figures | None, base_version: str | None) -> list[str]:
    """The figures of a version, the base value beside every changed one."""
    code, row = figures.currency, figures.rows
    told = f"P&L {money(figures.total, code)}{_row(row, 'total')}"
    same = base is not None and base.currency == code
    if base is not None and same and base.total != figures.total:
        told += f"  ({base_version}: {money(base.total, code)}, so {money(figures.total - base.total, code)})"
    elif base is not None:
        told += f"  (as {base_version})" if same else f"  ({base_version} was in {base.currency})"
    lines = [told]
    if figures.interval is not None and figures.level is not None:
        low, high = figures.interval
        lines.append(f"{figures.level:.0%} band: {money(low, code)}{_row(row, 'low')} to "
                     f"{money(high, code)}{_row(row, 'high')}")  # fmt: skip
    lines += [f"  {one}" for one in by_part(figures.by_factor, base.by_factor if base and same else None, code,
                                            base_version, row)]  # fmt: skip
    was = f"  ({base_version}: {base.compliance})" if base and base.compliance != figures.compliance else ""
    lines.append(f"compliance: {figures.compliance}{was}")
    lines += [f"  breached: {clean(one)}" for one in figures.breaches]
    if base is not None:
        lines += [f"  breached no more: {clean(one)}" for one in base.breaches if _subject(one) not in
                  {_subject(line) for line in figures.breaches}]  # fmt: skip
    return lines


def by_part(
    now: Mapping[str, float], base: Mapping[str, float] | None, code: str, base_version: str | None,
    rows: Mapping[str, str] | None = None,
) -> list[str]:  # fmt: skip
    """The parts of a P&L, the largest first, with what they were."""
    names = [name for name in (*now, *(base or {})) if now.get(name) or (base or {}).get(name)]
    lines: list[str] = []
    for name in sorted(dict.fromkeys(names), key=lambda one: -abs(now.get(one, 0.0))):
        value, was = now.get(name, 0.0), None if base is None else base.get(name, 0.0)
        changed = f"  ({base_version}: {money(was, code)})" if was is not None and round(was - value, 2) else ""
        lines.append(f"{clean(name):<18} {money(value, code):>16}{_row(rows or {}, f'factor {name}')}{changed}")
    return lines


def _row(rows: Mapping[str, str], name: str) -> str:
    return f" [{rows[name]}]" if name in rows else ""


def _subject(line: str) -> str:
    return line.partition(":")[0]


def indented(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"  {line}" for line in lines)

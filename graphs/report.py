"""The report of a run as types, in which every number names its evidence row; and its Markdown form."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from finllm.agents.escalations import Escalation
from finllm.desk.spending import SpentRow
from finllm.graphs.against import Against
from finllm.graphs.by_hand import HandRow
from finllm.graphs.channel_lines import CHANNELS_HEADER, ChannelLine, channel_cells, told
from finllm.graphs.figures import Figure
from finllm.graphs.judged import JUDGED_HEADER, JudgedRow
from finllm.graphs.markdown import markdown_table, markdown_text
from finllm.guardrails.crossmodal import FactorCheck
from finllm.guardrails.rules import Finding, RuleVerdict
from finllm.plain_text import trading_days
from finllm.tools.data.factors import Origin
from finllm.tools.evidence import Evidence, show
from finllm.tools.pnl.coverage import Coverage, of_the_book, part_of_the_book
from finllm.tools.pnl.limits import NO_LIMITS
from finllm.tools.pnl.outcome import HorizonRow


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class ShockRow(_Frozen):
    """A factor's move, its size in sigmas, who wanted it and whether it was applied (`refused` says why not).

    `implied`: the move that the other shocks imply, and `off` how far it is from that; None where there are none.
    """

    factor: str
    move: Figure
    sigma: Figure | None
    origin: Origin
    window: str
    refused: str | None = None
    implied: Figure | None = None
    off: Figure | None = None

    @model_serializer(mode="wrap")
    def _without_what_there_is_not(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if value or name not in ("implied", "off")}


class Dissent(_Frozen):
    """Somebody disagreed with what was done. `about`: a factor, a source or a rule; `by`: what decided against them."""

    who: str
    about: str
    said: str
    instead_of: str
    by: str = ""

    @property
    def other_side(self) -> str:
        """What stands instead, and who or what says so."""
        return f"{self.instead_of}, by {self.by}" if self.by else self.instead_of

    @property
    def words(self) -> str:
        """The dissent in a line, both sides."""
        return f"{self.who} on {self.about}: {self.said}, instead of {self.other_side}"


class SecondRow(_Frozen):
    """A field of the reading beside the second opinion's value; `diverged` where that is sure of something else."""

    field: str
    read: str
    second: str
    probability: Figure
    diverged: bool


class SourceRow(_Frozen):
    """A source and what became of it: the check's verdict, what was cut from its text, and why it was left out."""

    id: str
    publisher: str
    published_at: str
    verdict: str
    removed: tuple[str, ...]
    left_out: str | None


class AnalogueRow(_Frozen):
    """The closest past event, and the book's P&L were that window to repeat, where the market data cover it."""

    id: str
    title: str
    start: str
    end: str
    total: Figure | None
    why_no_total: str | None
    how: str | None = None

    @property
    def named(self) -> str:
        """The event, its days, and who or what found it the closest."""
        return f"{self.title}, {self.start} to {self.end}" + (f" ({self.how})" if self.how else "")


class AgentRow(_Frozen):
    """How an agent answered: on which backend, with which prompt, why it was asked again, or why it abstained.

    `short`: it abstained since the budget did not reach.
    """

    agent: str
    status: Literal["judged", "abstained"]
    backend: str | None
    precision: str | None
    prompt_version: str
    reason: str | None
    escalations: tuple[Escalation, ...] = ()
    short: bool = False

    @model_serializer(mode="wrap")
    def _without_what_there_is_not(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if value or name != "short"}


class PathRow(_Frozen):
    """A step of the scenario's path: what it adds to the P&L, and the P&L from today. `worst`: the report is of it."""

    label: str
    days: int
    step: Figure
    total: Figure
    worst: bool


class Report(_Frozen):
    """What a run found. Money in `currency`. `blocked` lists what was kept from the conclusion and why.

    `engine`: the version of the P&L arithmetic; a report that does not say is of the first. `coverage` is None where it
    was not measured, `gross_value` where it is the `book_value`, `total_share` where a book is worth nothing.
    `interval_untested`: why nobody tested that the interval holds so often; `by_day`: the P&L day by day for the chart.
    `var_coverage`: share of the book that the VaR is of; `unchecked`: limits not checked, and why. `against`: the text
    against the market; `judged`: what each agent said, and `moved` what follows from it; none in records of before.
    `replayed`: the window of a replay, in words; `first`: what has to be known before the figures are read. `channels`:
    None where no reader of these was at hand. `hand`: what people decided in it, and why.

    `spent` is no part of the result, which is the same when it is computed again: it is put in when the run ends.
    """

    run_id: str
    status: Literal["finished", "blocked"]
    title: str
    as_of: str
    horizon: int
    currency: str = "USD"
    engine: int = 1
    summary: tuple[str, ...]
    event: dict[str, str] | None
    event_probability: dict[str, float]
    factors: tuple[FactorCheck, ...]
    shocks: tuple[ShockRow, ...]
    book_value: Figure
    gross_value: Figure | None = None
    total: Figure
    total_share: Figure | None
    interval: tuple[Figure, Figure] | None
    interval_level: Figure | None
    interval_method: str | None
    interval_parts: dict[str, Figure] = {}
    interval_untested: str = "made before levels were tested"
    by_day: tuple[HorizonRow, ...] = ()
    var_975_1d: Figure | None
    by_position: dict[str, Figure]
    by_factor: dict[str, Figure]
    by_sector: dict[str, Figure]
    breaches: tuple[str, ...]
    analogue: AnalogueRow | None
    verdict: str
    compliance: RuleVerdict
    findings: tuple[Finding, ...]
    dissent: tuple[Dissent, ...]
    blocked: tuple[str, ...]
    sources: tuple[SourceRow, ...]
    exclusions: tuple[str, ...]
    agents: tuple[AgentRow, ...]
    notes: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    second: tuple[SecondRow, ...] = ()
    coverage: Coverage | None = None
    var_coverage: float = 1.0
    unchecked: tuple[str, ...] = ()
    against: Against | None = None
    judged: tuple[JudgedRow, ...] = ()
    moved: tuple[str, ...] = ()
    replayed: str | None = None
    first: tuple[str, ...] = ()
    aged: str | None = None
    spent: SpentRow | None = None
    path: tuple[PathRow, ...] = ()
    channels: tuple[ChannelLine, ...] | None = None
    hand: tuple[HandRow, ...] = ()

    @model_serializer(mode="wrap")
    def _without_what_there_is_not(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        later = ("path", "replayed", "first", "aged", "hand")
        gone = later if self.channels is not None else (*later, "channels")
        return {name: value for name, value in dump(self).items() if value or name not in gone}

    @property
    def over(self) -> str:
        """How long the shocks take, in words."""
        return self.replayed or f"over {trading_days(self.horizon)}" + (f", aged to {self.aged}" if self.aged else "")

    @property
    def var_name(self) -> str:
        """What the VaR is called: with the share of the book that it is of, where that is not the whole."""
        return of_the_book("one-day VaR", self.var_coverage)

    @property
    def interval_tested(self) -> str:
        """What the interval may be called."""
        return f"A model band, level not tested: {self.interval_untested}." if self.interval_untested else \
            "Its level was tested on dated episodes (docs/numbers.md)."  # fmt: skip

    @property
    def of_what(self) -> str:
        """What the P&L is a share of."""
        return part_of_the_book(self.coverage, net=self.gross_value is None)

    @property
    def share_words(self) -> str:
        """The P&L as a share of what it is of, or that there is nothing that it could be a share of."""
        return f"{self.total_share} {self.of_what}" if self.total_share else "of a book that is worth nothing"

    @property
    def no_breach(self) -> str:
        """What is said where no limit is breached: nothing was, or there was none to check."""
        idle = any(one.rule == "limits" and one.verdict == "not checked" for one in self.findings)
        return NO_LIMITS if idle else "None."

    @property
    def ruled(self) -> str:
        """The verdict of compliance, with the rules that had nothing to look at."""
        idle = [finding.rule for finding in self.findings if finding.verdict == "not checked"]
        return self.compliance + (f" (not checked: {', '.join(idle)})" if idle else "")


def of_its_value(gross: object) -> str:
    """What the P&L of a whole book is a share of, in a sentence about the book; `gross`: its gross value, if that is
    another than its value."""
    return "of its value" if gross is None else "of its gross value"


COST_HEADER = ("", "spent", "unit", "provenance", "basis")
PATH_HEADER = ("step", "trading days", "P&L of the step", "P&L from today", "")
SHOCKS_HEADER = ("factor", "move", "size", "others imply", "off by", "origin", "window", "applied")
SECOND_HEADER = ("field", "read", "second opinion", "its probability", "diverged")


def to_markdown(report: Report) -> str:
    """The report as Markdown; each number stands with its evidence id, and the evidence table closes the page."""
    parts = [
        f"# {markdown_text(report.title)}",
        f"Run `{report.run_id}`, as of {report.as_of}, {report.over}. "
        f"Compliance: **{report.ruled}**. Text and measurements: **{report.verdict}**.",
        *(markdown_text(sentence) for sentence in (*report.first, *report.summary)),
        *(_section(title, lines) for title, lines in (*_found(report), *_behind(report))),
    ]
    return "\n\n".join(parts) + "\n"


def _found(report: Report) -> list[tuple[str, list[str]]]:
    """The sections of the result: what was read and shocked, what the book does, and what speaks against it."""
    seconds = [(r.field, r.read, r.second, _cite(r.probability), "yes" if r.diverged else "no") for r in report.second]
    shocks = [(row.factor, _cite(row.move), _cite(row.sigma), _cite(row.implied), _cite(row.off), row.origin,
               row.window, row.refused or "yes") for row in report.shocks]  # fmt: skip
    path = [(one.label, str(one.days), _cite(one.step), _cite(one.total), "worst" if one.worst else "")
            for one in report.path]  # fmt: skip
    findings = [(finding.rule, finding.verdict, finding.what) for finding in report.findings]
    dissent = [f"- {markdown_text(d.words)}" for d in report.dissent]
    return [
        ("The event as read", _event_lines(report)),
        *(
            [
                (
                    "Channels",
                    [*told(report.channels), "", *markdown_table(CHANNELS_HEADER, channel_cells(report.channels))],
                )
            ]
            if report.channels is not None
            else []
        ),
        *([("Text against the market", report.against.markdown)] if report.against else []),
        ("Second opinion", markdown_table(SECOND_HEADER, seconds)),
        ("Shocks", markdown_table(SHOCKS_HEADER, shocks)),
        *([("P&L along the path", markdown_table(PATH_HEADER, path))] if path else []),
        ("P&L by factor", _money(report.by_factor)),
        ("P&L by sector", _money(report.by_sector)),
        ("P&L by position", _money(report.by_position)),
        ("Interval", _interval_lines(report)),
        ("Closest past event", _analogue_lines(report)),
        ("Limit breaches", [f"- {line}" for line in report.breaches] or [report.no_breach]),
        ("Limits not checked", [f"- {markdown_text(line)}" for line in report.unchecked] or ["None."]),
        ("Compliance", markdown_table(("rule", "verdict", "finding"), findings)),
        ("Who dissented", dissent or ["Nobody."]),
        ("What was blocked", [f"- {markdown_text(line)}" for line in report.blocked] or ["Nothing."]),
    ]


def _behind(report: Report) -> list[tuple[str, list[str]]]:
    """The sections of what the result stands on: sources, agents, cost, notes and the evidence."""
    sources = [(s.id, s.publisher, s.published_at, s.verdict, "; ".join(s.removed) or "-", s.left_out or "-")
               for s in report.sources]  # fmt: skip
    agents = [(a.agent, a.status, a.backend or "-", a.prompt_version,
               a.reason or "; ".join(one.words for one in a.escalations) or "-") for a in report.agents]  # fmt: skip
    notes = [f"- {markdown_text(line)}" for line in (*report.exclusions, *report.notes)]
    evidence = [(e.id, show(e.value, e.unit), e.what, e.entity, e.period, where(e)) for e in report.evidence]
    return [
        ("Sources", markdown_table(("source", "publisher", "published", "verdict", "removed", "left out"), sources)),
        ("What the agents judged", _judged_lines(report)),
        ("Agents", markdown_table(("agent", "status", "backend", "prompt", "reason"), agents)),
        ("What it cost", markdown_table(COST_HEADER, cost_rows(report.spent))),
        ("Notes", notes or ["None."]),
        ("Evidence", markdown_table(("id", "value", "what", "entity", "period", "source or formula"), evidence)),
    ]


def cost_rows(spent: SpentRow | None) -> list[tuple[str, ...]]:
    """What a run cost, a row for each quantity that is known."""
    if spent is None:
        return []
    known = (("energy", "J", spent.joules), ("carbon", "gCO₂e", spent.grams), ("money", "USD", spent.usd))
    return [
        (
            "time",
            f"{spent.seconds:.1f}",
            "s",
            "measured",
            "wall-clock of this process, model time of earlier ones" + (f"; {spent.over}" if spent.over else ""),
        ),
        ("tokens", str(spent.tokens), "tokens", "measured", f"prompt and output, {spent.deep_tokens} of the deep tier"),
        *((name, f"{one.value:.4g}", unit, one.provenance, one.basis) for name, unit, one in known if one is not None),
        *(spent.copies.rows if spent.copies else ()),
        *(("left out", "1", "", "measured", line) for line in spent.left_out),
    ]


def where(row: Evidence) -> str:
    """Where an evidence row comes from: its formula, or its source with the pointer and the digest's first digits."""
    if row.source is None:
        return row.formula or ""
    source = f"{row.source.uri} {row.source.pointer} (sha256 {row.source.sha256[:12]})"
    return f"{row.formula}; {source}" if row.formula else source


def _event_lines(report: Report) -> list[str]:
    if report.event is None:
        return ["The narrative agent abstained: no shock was derived from the text."]
    read = ", ".join(f"{name} {value} ({report.event_probability[name]:.0%})" for name, value in report.event.items())
    rows = [(c.factor, c.read, c.words, c.precedents, c.support) for c in report.factors]
    return [read, "", *markdown_table(("factor", "read", "sources' words", "precedents", "support"), rows)]


def _judged_lines(report: Report) -> list[str]:
    rows = [(row.agent, row.about or "-", row.said, ", ".join(row.because) or "-") for row in report.judged]
    moved = [f"- {markdown_text(line)}" for line in report.moved]
    return [*markdown_table(JUDGED_HEADER, rows), *(["", *moved] if moved else [])]


def _interval_lines(report: Report) -> list[str]:
    if report.interval is None or report.interval_level is None:
        return ["None: no holding has a history."]
    low, high = report.interval
    lines = [f"{_cite(low)} to {_cite(high)} at {_cite(report.interval_level)}: {report.interval_method}"]
    parts = [(part, _cite(share)) for part, share in report.interval_parts.items()]
    return [*lines, "", report.interval_tested, "", *markdown_table(("part", "share of the width"), parts)]


def _analogue_lines(report: Report) -> list[str]:
    if report.analogue is None:
        return ["None was found."]
    a = report.analogue
    outcome = f"the book would move by {_cite(a.total)}" if a.total else f"not replayed: {a.why_no_total}"
    return [f"{markdown_text(a.named)}: {outcome}"]


def _money(figures: dict[str, Figure]) -> list[str]:
    ordered = sorted(figures.items(), key=lambda item: item[1].value)
    return markdown_table(("", "P&L"), [(name, _cite(figure)) for name, figure in ordered])


def _cite(figure: Figure | None) -> str:
    return "-" if figure is None else f"{figure} [{figure.evidence}]"


def _section(title: str, lines: list[str]) -> str:
    return f"## {title}\n\n" + "\n".join(lines)

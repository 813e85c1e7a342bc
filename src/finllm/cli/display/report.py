"""The report on a terminal: the summary first, then what it rests on. Its text is shown as data, never as markup."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from finllm.plain_text import clean
from finllm.tools.evidence import show

if TYPE_CHECKING:
    from finllm.graphs.against import Against
    from finllm.graphs.channel_lines import ChannelLine
    from finllm.graphs.figures import Figure
    from finllm.graphs.report import Report
    from finllm.tools.pnl.coverage import Coverage

LARGEST = 10
"""Positions that get a row of their own; the rest are one row."""
MOST_ROWS = 1_000
"""Rows of a table that are laid out on a terminal."""

Cell = str | Text


def report_view(report: Report) -> Group:
    """Everything a risk manager reads, in reading order; the whole evidence table stands in report.json."""
    from finllm.graphs.report import COST_HEADER, cost_rows

    return Group(
        _headline(report),
        *_section("The event as read", _event(report)),
        *(_section("Channels", *_channels(report.channels)) if report.channels is not None else ()),
        *(_section("Text against the market", _against(report.against)) if report.against else ()),
        *_section("Shocks", _shocks(report)),
        *_section("P&L by factor", _money(report.by_factor)),
        *_section("P&L by sector", _money(report.by_sector)),
        *_section("P&L by position", _positions(report)),
        *_section("Interval", _interval(report)),
        *_section("Closest past event", _analogue(report)),
        *_section("Limit breaches", _lines(report.breaches, report.no_breach, "bold red")),
        *(_section("Limits not checked", _lines(report.unchecked, "None.", "yellow")) if report.unchecked else ()),
        *_section("Compliance", table(
            ("rule", "verdict", "finding"), [(f.rule, verdict(f.verdict), f.what) for f in report.findings])),
        *_section("Who dissented", _lines(_dissent(report), "Nobody.")),
        *_section("What was blocked", _lines(report.blocked, "Nothing.", "yellow")),
        *_section("Sources", table(
            ("source", "publisher", "published", "verdict", "left out"),
            [(s.id, s.publisher, s.published_at.replace("+00:00", "Z"), s.verdict, _left_out(s.left_out, s.removed))
             for s in report.sources])),
        *(_section("What the agents judged", *_judged(report)) if report.judged else ()),
        *_section("Agents", _agents(report)),
        *_section("What it cost", table(COST_HEADER, cost_rows(report.spent), right=(1,))),
        *_section("Notes", _lines((*report.exclusions, *report.notes), "None.")),
    )  # fmt: skip


def _channels(lines: Sequence[ChannelLine]) -> Iterator[RenderableType]:
    """What is said of them, and a row for each; a run without a reader of channels has no such section."""
    from finllm.graphs.channel_lines import CHANNELS_HEADER, channel_cells, told

    if said := told(lines):
        yield _lines(said, "")
    if lines:
        yield table(CHANNELS_HEADER, channel_cells(lines))


def text(value: Cell, style: str = "") -> Text:
    """A string as data: no markup, no control characters."""
    return value if isinstance(value, Text) else Text(clean(value), style=style)


def table(
    header: Sequence[str], rows: Iterable[Sequence[Cell]], right: Sequence[int] = (), whole: Sequence[int] = ()
) -> RenderableType:
    """A table, or `None.` without rows; the columns in `right` are flush right, those in `whole` are never folded.

    Of more than `MOST_ROWS` the first are laid out, with how many more there are and where: rich measures every cell.
    """
    rows = list(rows)
    more = len(rows) - MOST_ROWS
    if not rows:
        return Text("None.")
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for at, name in enumerate(header):
        grid.add_column(name, justify="right" if at in right else "left", overflow="fold", no_wrap=at in whole)
    for row in rows[:MOST_ROWS]:
        grid.add_row(*(text(cell) for cell in row))
    if more <= 0:
        return grid
    return Group(grid, text(f"the first {MOST_ROWS:,} of {len(rows):,} rows; --json has all of them", "bold yellow"))


def listing(rows: Iterable[tuple[Cell, Sequence[Cell]]]) -> RenderableType:
    """Each thing by its name on a line of its own, and below it what there is to say of it.

    No name or path is folded; print it with `crop=False`, so that none is cut off either.
    """
    parts = list[RenderableType]()
    for name, told in rows:
        parts.append(_for_copying(text(name)))
        for line in map(text, told):
            folds = " " in line.plain
            parts.append(Padding(line, (0, 0, 0, 2), expand=False) if folds else _for_copying(text("  ") + line))
    return Group(*parts) if parts else Text("None.")


def _for_copying(line: Text) -> Text:
    line.no_wrap, line.overflow = True, "ignore"
    return line


def verdict(word: str) -> Text:
    styles = {"pass": "green", "flag": "yellow", "not checked": "yellow", "block": "bold red", "ok": "green",
              "warning": "yellow", "missing": "bold red", "failed": "bold red"}  # fmt: skip
    return text(word, styles.get(word, ""))


def headline(what: str, coverage: Coverage | None) -> Text:
    """The first line of a result: what it is of and how much of the book it is about; a gap has the line to itself."""
    if coverage is None:  # of a record from before coverage was measured
        return text(what, "bold")
    if coverage.complete:
        return text(f"{what}: {coverage.headline}", "bold")
    return Text.assemble(text(coverage.headline, "bold red"), "\n", text(what, "bold"))


def _headline(report: Report) -> RenderableType:
    status = Text.assemble(
        ("BLOCKED by compliance. " if report.status == "blocked" else "", "bold red"),
        f"As of {report.as_of}, {report.over}. Compliance: ",
        verdict(report.compliance), report.ruled.removeprefix(report.compliance),
        f". Text and measurements: {clean(report.verdict)}.",
    )  # fmt: skip
    first = [text(line, "bold yellow") for line in report.first]
    return Group(headline(report.title, report.coverage), *first, *(text(sentence) for sentence in report.summary),
                 status, text(f"run {report.run_id}", "dim"))  # fmt: skip


def _section(title: str, *body: RenderableType) -> list[RenderableType]:
    return [Text(), Text(title, style="bold cyan"), *body]


def _event(report: Report) -> RenderableType:
    if report.event is None:
        return Text("The narrative agent abstained: no shock was derived from the text.", style="yellow")
    read = ", ".join(f"{name} {value} ({_chance(report, name)})" for name, value in report.event.items())
    rows = [(c.factor, c.read, c.words, c.precedents, c.support) for c in report.factors]
    return Group(text(read), table(("factor", "read", "sources' words", "precedents", "support"), rows))


def _chance(report: Report, field: str) -> str:
    probability = report.event_probability.get(field)
    return "?" if probability is None else show(probability, "probability")


def _shocks(report: Report) -> RenderableType:
    from finllm.graphs.report import SHOCKS_HEADER

    rows = [
        (row.factor, *(_figure(one) for one in (row.move, row.sigma, row.implied, row.off)), row.origin, row.window,
         text(row.refused, "yellow") if row.refused else "yes")
        for row in report.shocks
    ]  # fmt: skip
    return table(SHOCKS_HEADER, rows, right=(1, 2, 3, 4))


def _money(figures: dict[str, Figure]) -> RenderableType:
    ordered = sorted(figures.items(), key=lambda item: item[1].value)
    return table(("", "P&L", "evidence"), [_money_row(name, figure) for name, figure in ordered], right=(1,))


def _money_row(name: str, figure: Figure) -> tuple[Cell, ...]:
    return name, text(str(figure), _colour(figure.value)), text(figure.evidence, "dim")


def _positions(report: Report) -> RenderableType:
    by_size = sorted(report.by_position.items(), key=lambda item: -abs(item[1].value))
    shown, rest = by_size[:LARGEST], by_size[LARGEST:]
    rows = [_money_row(name, figure) for name, figure in sorted(shown, key=lambda item: item[1].value)]
    if rest:
        total = sum(figure.value for _name, figure in rest)
        rows.append(("others", text(show(total, rest[0][1].unit), _colour(total)),
                     text(f"sum of the {len(rest)} other rows", "dim")))  # fmt: skip
    return table(("", "P&L", "evidence"), rows, right=(1,))


def _interval(report: Report) -> RenderableType:
    risk: list[Text] = []
    if report.var_975_1d is not None:
        name = report.var_name
        risk.append(Text.assemble(f"{name[0].upper()}{name[1:]}: ", _figure(report.var_975_1d)))
    if report.interval is None or report.interval_level is None:
        return Group(Text("None: no holding has a history."), *risk)
    low, high = report.interval
    return Group(
        Text.assemble(_figure(low), " to ", _figure(high), " at ", _figure(report.interval_level), ": ",
                      text(report.interval_method or "")),
        *([_shares(report)] if report.interval_parts else []),
        text(report.interval_tested, "dim"),
        *risk,
    )  # fmt: skip


def _shares(report: Report) -> Text:
    """What makes the interval wide, part by part."""
    parts: list[str | Text] = ["Its width: "]
    for part, share in report.interval_parts.items():
        parts += [f"{part} ", _figure(share), "; "]
    return Text.assemble(*parts[:-1])


def _analogue(report: Report) -> RenderableType:
    a = report.analogue
    if a is None:
        return Text("None was found.")
    past = text(f"{a.named}: ")
    if a.total is None:
        return Text.assemble(past, " ", text(f"not replayed: {a.why_no_total or 'no reason given'}"))
    return Text.assemble(past, " the book would move by ", _figure(a.total))


def _dissent(report: Report) -> list[str]:
    """A line for all that somebody said the same of."""
    about: dict[tuple[str, str, str], list[str]] = {}
    for one in report.dissent:
        about.setdefault((one.who, one.said, one.other_side), []).append(one.about)
    return [
        f"{who} on {', '.join(names)}: {said}, instead of {instead}" for (who, said, instead), names in about.items()
    ]


def _against(against: Against) -> RenderableType:
    from finllm.graphs.against import LIQUIDITY_HEADER

    rows = [(row.day, row.factor, row.read, _figure(row.move), _figure(row.surprise), row.verdict)
            for row in against.first]  # fmt: skip
    said: list[RenderableType] = [text(f"- {line}") for line in (*against.lines, *against.untestable)]
    if more := len(against.tested) - len(rows):
        said.append(text(f"- {more} rows of later days of publication stand in the report's files."))
    if rows:
        said.append(table(("since the close before", "factor", "read", "moved by", "surprise", "verdict"), rows,
                          right=(3, 4)))  # fmt: skip
    if against.liquidity:
        said.append(table(LIQUIDITY_HEADER, [row.shown for row in against.liquidity], right=(2, 3)))
    return Group(*said)


def _judged(report: Report) -> list[RenderableType]:
    rows = [(row.agent, row.about or "-", row.said, ", ".join(row.because) or "-") for row in report.judged]
    return [table(("agent", "about", "said", "because"), rows), _lines(report.moved, "They moved nothing.")]


def _agents(report: Report) -> RenderableType:
    counts = Counter((a.agent, a.status, a.backend or "-", a.reason or "-") for a in report.agents)
    rows = [(agent, str(times), status, backend, why) for (agent, status, backend, why), times in counts.items()]
    return table(("agent", "times", "status", "backend", "reason"), rows, right=(1,))


def _figure(figure: Figure | None) -> Text:
    """The number with the id of its evidence row."""
    return Text("-") if figure is None else Text.assemble(str(figure), (f" [{figure.evidence}]", "dim"))


def _left_out(reason: str | None, removed: Sequence[str]) -> Text:
    said = "; ".join([*([reason] if reason else []), *(f"removed: {piece}" for piece in removed)])
    return text(said or "-", "yellow" if said else "")


def _lines(lines: Sequence[str], otherwise: str, style: str = "") -> RenderableType:
    return Group(*(text(f"- {line}", style) for line in lines)) if lines else Text(otherwise)


def _colour(value: float) -> str:
    return "red" if value < 0 else "green" if value > 0 else ""

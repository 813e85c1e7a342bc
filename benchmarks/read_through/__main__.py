"""Runs every shipped scenario and lays each move beside the nearest real episode; writes docs/read-through.md."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.read_through.verdicts import Expected, Row, expected
from finllm.scenarios import PORTFOLIOS_DIR
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.market import MarketStore

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "read-through.md"
BEFORE, AFTER = "<!-- figures: written by benchmarks/read_through -->", "<!-- end of figures -->"
OIL = "WTI_FRONT"
"""The oil contract of the shipped book: left out of its sector, which then is its energy shares."""
UNITS = {"return": (100.0, "%"), "bp": (1.0, "bp"), "points": (1.0, "")}
WAIT = 600
"""Seconds for a run."""


def main() -> None:
    parts: list[str] = []
    wrong: list[str] = []
    counted: Counter[str] = Counter()
    signed = 0
    for name, wanted in expected().items():
        report = run(name)
        rows = [*factors(report, wanted), *sectors(report, wanted)]
        counted.update(one.verdict for one in rows)
        signed += sum(one.signed for one in rows)
        wrong += [f"| {name} | {_line(one)} |" for one in rows if one.verdict != "right"]
        parts.append(_scenario(name, report, wanted, rows))
        print(f"{name}: {Counter(one.verdict for one in rows)}", file=sys.stderr)
    total = ", ".join(f"{count} {verdict}" for verdict, count in counted.most_common())
    right = signed - counted["wrong sign"] - counted["not moved"]
    figures = "\n\n".join([
        f"### What is outside the ranges\n\nMade at commit {_commit()}. Of {counted.total()} moves: {total}. {signed} "
        f"have a sign by their episode, and {right} of those have it in the run.",
        "\n".join([_header("scenario"), *wrong]), *parts,
    ])  # fmt: skip
    head, rest = DOCUMENT.read_text(encoding="utf-8").split(BEFORE)
    DOCUMENT.write_text(f"{head}{BEFORE}\n\n{figures}\n\n{AFTER}{rest.split(AFTER)[1]}", encoding="utf-8")


def run(name: str) -> dict[str, Any]:
    """The report of one shipped scenario on the shipped book, as the command gives it."""
    command = [str(Path(sys.executable).with_name("finllm")), "run", name, "--json"]
    done = subprocess.run(command, check=True, capture_output=True, timeout=WAIT, text=True)
    return json.loads(done.stdout)


def factors(report: dict[str, Any], wanted: Expected) -> list[Row]:
    """The seven judged factors: what was shocked, by whom, or that a shock was refused."""
    shocks = {one["factor"]: one for one in report["shocks"]}
    found: list[Row] = []
    for name, (low, high, why) in wanted.factors.items():
        shock = shocks.get(name)
        if shock is None or shock["refused"]:
            found.append(Row(name, None, "refused" if shock else "none", low, high, why))
            continue
        scale, _unit = UNITS[shock["move"]["unit"]]
        found.append(Row(name, round(shock["move"]["value"] * scale, 1), shock["origin"], low, high, why))
    return found


def sectors(report: dict[str, Any], wanted: Expected) -> list[Row]:
    """P&L of each sector's positions over their value, per cent; the oil contract apart."""
    as_of = dt.date.fromisoformat(report["as_of"])
    book = value_portfolio(load_portfolio(PORTFOLIOS_DIR / "default.csv"), MarketStore(), as_of)
    found: list[Row] = []
    for name, (low, high, why) in wanted.sectors.items():
        held = [one for one in book.holdings if one.sector == name and one.id != OIL]
        gain = sum(report["by_position"][one.id]["value"] for one in held if one.id in report["by_position"])
        move = round(100 * gain / sum(one.market_value for one in held), 1)
        found.append(Row(name, move if report["by_position"] else None, "", low, high, why))
    return found


def _commit() -> str:
    found = subprocess.run(["git", "log", "-1", "--format=%h of %cs"], check=True, capture_output=True, text=True)
    return found.stdout.strip()


def _scenario(name: str, report: dict[str, Any], wanted: Expected, rows: list[Row]) -> str:
    read = ", ".join(f"{one['factor']} {one['read']}" for one in report["factors"] if one["read"])
    event = ", ".join(str(value) for value in (report["event"] or {}).values())
    lines = "\n".join(f"| {_line(one)} |" for one in rows)
    return (f"### {report['title']}\n\n`{name}`, {report['horizon']} days from {report['as_of']}. {wanted.episode}.\n\n"
            f"Read: {event}; {read}. {' '.join(report['summary'])}\n\n{_header()}\n{lines}")  # fmt: skip


def _header(*first: str) -> str:
    names = [*first, "", "run", "set by", "episode", "", "why"]
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def _line(one: Row) -> str:
    move = "none" if one.move is None else f"{one.move:+g}"
    verdict = one.verdict if one.verdict == "right" else f"**{one.verdict}**"
    wanted = f"{one.low:+g}" if one.low == one.high else f"{one.low:+g} to {one.high:+g}"
    return f"{one.name} | {move} | {one.origin} | {wanted} | {verdict} | {one.why}"


if __name__ == "__main__":
    main()

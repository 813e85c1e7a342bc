"""What each edit of a session does to a run's request. Nothing is run here, and what cannot be run is refused."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finllm.errors import InputError
from finllm.plain_text import clean
from finllm.sessions.grammar import Line, misused, nearest, needs_reason

if TYPE_CHECKING:
    from finllm.desk.request import RunRequest
    from finllm.graphs.report import Report
    from finllm.tools.data.market import MarketStore
    from finllm.tools.data.scenario import Scenario, SourceText

_USES = {"on": "on", "off": "off", "mute": "muted", "muted": "muted"}
SIZES = ("small", "medium", "large", "extreme")


@dataclass(frozen=True)
class Hand:
    """Who edits, on which market, and what the version in hand found (None where it has no report)."""

    who: str
    market: MarketStore
    report: Report | None


def edited(request: RunRequest, line: Line, hand: Hand) -> RunRequest:
    """The request after the edit; an approval is of what was approved, so the edited version has none.

    Errors: InputError or LookAheadError naming what is wrong and the mend.
    """
    changed = _EDITS[line.verb.name](request, line, hand)
    changed = changed.model_copy(update={"scenario": _valid(changed.scenario, {"approved_by": None, "lineage": None})})
    if changed.scenario == request.scenario.model_copy(update={"approved_by": None, "lineage": None}) and (
        changed.limits == request.limits
    ):
        raise InputError(f"{clean(line.typed)[:80]!r} changes nothing", fix="'show' tells what the version in hand is")
    check(changed, hand.market)
    return changed


def check(request: RunRequest, market: MarketStore) -> None:
    """That the tools can work out the request. Errors: InputError, LookAheadError."""
    from finllm.tools.data.books.valuation import value_portfolio
    from finllm.tools.pnl.asked import scenario_factors, scenario_shocks
    from finllm.tools.pnl.shocks import JudgedShock, plan_shocks
    from finllm.tools.pnl.sizes import FactorView

    scenario = request.scenario
    value_portfolio(request.portfolio, market, scenario.as_of, request.currency)
    known = scenario_factors(scenario, market, request.portfolio)
    window = (scenario.replay.start, scenario.replay.end) if scenario.replay else None
    own = [JudgedShock(one.factor, one.direction, one.size) for one in scenario.readings if one.size != "none"]
    plan_shocks(FactorView(known, market, scenario.as_of), scenario.horizon, user=scenario_shocks(scenario, known),
                replay=window, judged=own)  # fmt: skip


def told_story(text: str, market_last: dt.date, as_of: dt.date | None = None) -> Scenario:
    """A scenario of a story in somebody's own words: no sources, no shocks, a month ahead. Errors: InputError."""
    words = text.split()
    title = " ".join(words[:8]) + ("…" if len(words) > 8 else "")
    return _made({"title": title[:200] or " ", "narrative": text, "horizon": 20, "as_of": as_of or market_last})


def _story(request: RunRequest, line: Line, hand: Hand) -> RunRequest:
    del hand
    if not line.text:
        raise misused(line.verb)
    return _with(request, narrative=line.text)


def _source(request: RunRequest, line: Line, hand: Hand) -> RunRequest:
    words = line.words
    if len(words) == 2 and words[0] in _USES and words[1] not in _USES:
        words = (words[1], words[0])
    match words:
        case ("add", _, *_):
            return _add_source(request, Path(line.text.partition(" ")[2].strip()), hand)
        case (id, use) if use in _USES:
            if not line.because:
                raise needs_reason(line.verb)
            use = _USES[use]
            ids = [one.id for one in request.scenario.sources]
            if id not in ids:
                close = nearest(id, ids) or ids
                raise InputError(
                    f"no source {clean(id)!r}", fix=f"use one of {', '.join(close) or 'none: there is none'}"
                )
            changed = {"use": use, "because": line.because, "by": hand.who} if use != "on" else \
                {"use": "on", "because": None, "by": None}  # fmt: skip
            return _with(request, sources=[
                {**one.model_dump(mode="json"), **changed} if one.id == id else one.model_dump(mode="json")
                for one in request.scenario.sources
            ])  # fmt: skip
        case _:
            raise misused(line.verb)


def _add_source(request: RunRequest, path: Path, hand: Hand) -> RunRequest:
    from finllm.errors import LookAheadError

    added = read_source(path.expanduser(), request, hand.who)
    if added.published_at.date() > request.as_of:
        raise LookAheadError(f"{str(path)!r} was published on {added.published_at.date()}, after {request.as_of}",
                             fix="leave it out, or start a session as of a later day")  # fmt: skip
    return _with(request, sources=[one.model_dump(mode="json") for one in (*request.scenario.sources, added)])


def read_source(path: Path, request: RunRequest, who: str) -> SourceText:
    """A source from a file: YAML with the fields of a scenario's source, else a plain text published on `as_of`."""
    from finllm.tools.data.scenario import SourceText
    from finllm.tools.data.yaml_files import read_yaml

    if path.suffix.lower() in (".yaml", ".yml"):
        return read_yaml(path, SourceText, "source",
                         needs="a source is a mapping with 'id', 'publisher', 'published_at', 'url' and 'text'",
                         example="see docs/scenario.md")  # fmt: skip
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the source {str(path)!r}: {error}", fix="give a text or YAML file") from error
    id = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in path.stem)[:64] or "source"
    moment = dt.datetime.combine(request.as_of, dt.time(), dt.UTC).isoformat()
    return _made({"id": id, "publisher": f"given by {who}", "published_at": moment,
                  "url": path.resolve().as_uri(), "text": text.strip()}, SourceText)  # fmt: skip


def _shock(request: RunRequest, line: Line, hand: Hand) -> RunRequest:
    if len(line.words) != 2:
        raise misused(line.verb)
    factor, move = _factor(line.words[0], request, hand), line.words[1]
    others = [one.model_dump(mode="json") for one in request.scenario.shocks if one.factor != factor]
    if move.casefold() == "none":
        if len(others) == len(request.scenario.shocks):
            raise InputError(f"{factor!r} has no shock to take away", fix=f"'read {factor} none' withholds a read one")
        return _with(request, shocks=others)
    if request.scenario.path is not None:
        raise InputError("the scenario goes along a path, whose steps give its shocks", fix="edit the path in its file")
    entry = {"factor": factor, "move": move, "because": line.because, "by": hand.who}
    readings = [one.model_dump(mode="json") for one in request.scenario.readings if one.factor != factor]
    return _with(request, shocks=[*others, entry], readings=readings)


def _read(request: RunRequest, line: Line, hand: Hand) -> RunRequest:
    words = [word.casefold().rstrip(",") for word in line.words]
    if len(words) not in (2, 3) or words[1] not in ("up", "down", "none") or (len(words) == 3 and words[1] == "none"):
        raise misused(line.verb)
    if len(words) == 3 and words[2] not in SIZES:
        raise InputError(f"no size {clean(words[2])!r}", fix=f"use one of {', '.join(SIZES)}")
    factor = _factor(line.words[0], request, hand)
    if factor in {one.factor for one in request.scenario.shocks}:
        raise InputError(f"{factor!r} has a shock that was given, which no reading moves",
                         fix=f"first 'shock {factor} none because \"…\"'")  # fmt: skip
    if request.scenario.replay is not None:
        raise InputError("a past window is replayed, and no reading moves the book",
                         fix=f"'shock {factor} …' moves it beside the replay, or 'replay off'")  # fmt: skip
    size = words[2] if len(words) == 3 else "none" if words[1] == "none" else _read_size(factor, hand)
    entry = {"factor": factor, "direction": words[1], "size": size, "because": line.because, "by": hand.who}
    others = [one.model_dump(mode="json") for one in request.scenario.readings if one.factor != factor]
    return _with(request, readings=[*others, entry])


def _read_size(factor: str, hand: Hand) -> str:
    """The size that the agents read of it, so that only the direction is turned; else medium."""
    for row in hand.report.shocks if hand.report else ():
        size = row.window.split(" ", 1)[0]
        if row.factor == factor and size in SIZES:
            return size
    return "medium"


def _dispute(request: RunRequest, line: Line, hand: Hand) -> RunRequest:
    if len(line.words) != 1:
        raise misused(line.verb)
    factor, answer = _factor(line.words[0], request, hand), line.verb.name
    check = next((one for one in hand.report.factors if one.factor == factor), None) if hand.report else None
    if check is None or check.read == "none":
        raise InputError(f"nothing was read of {factor!r} that could be {answer}ed".replace("withholded", "withheld"),
                         fix=f"'read {factor} up|down SIZE because \"…\"' reads it yourself")  # fmt: skip
    entry = {"factor": factor, "answer": answer, "because": line.because, "by": hand.who}
    others = [one.model_dump(mode="json") for one in request.scenario.disputes if one.factor != factor]
    return _with(request, disputes=[*others, entry])


def _horizon(request: RunRequest, line: Line, hand: Hand) -> RunRequest:
    del hand
    if len(line.words) != 1 or not line.words[0].isdigit():
        raise misused(line.verb)
    return _with(request, horizon=int(line.words[0]))


def _level(request: RunRequest, line: Line, hand: Hand) -> RunRequest:
    del hand
    text = "".join(line.words).removesuffix("%")
    try:
        level = float(text)
    except ValueError as error:
        raise misused(line.verb) from error
    level = level / 100 if level > 1 or "%" in "".join(line.words) else level
    if not 0 < level < 1:
        raise InputError(f"a band of level {text}", fix="give a level such as 90 or 0.99")
    return _with(request, level=round(level, 6))


def _hold(request: RunRequest, line: Line, hand: Hand) -> RunRequest:
    del hand
    if line.words:
        raise misused(line.verb)
    return _with(request, propagate=line.verb.name == "complete")


def _currency(request: RunRequest, line: Line, hand: Hand) -> RunRequest:
    del hand
    code = "".join(line.words).upper()
    said = request.limits.currency
    if said is not None and said != code:
        raise InputError(f"the limits are in {said}", fix="first 'limits FILE' with limits in that currency")
    return _with(request, currency=code)


def _limits(request: RunRequest, line: Line, hand: Hand) -> RunRequest:
    from finllm.desk.request import PriceFile
    from finllm.sessions.inputs import find_limits, limitable
    from finllm.tools.pnl.asked import scenario_factors

    if not line.text:
        raise misused(line.verb)
    path = Path(line.text).expanduser()
    known = scenario_factors(request.scenario, hand.market, request.portfolio)
    found = find_limits(path, None, limitable(known, hand.market), request.currency)
    return request.model_copy(update={"limits": found.limits, "files": (*request.files, PriceFile.of(path))})


def _trade(request: RunRequest, line: Line, hand: Hand) -> RunRequest:
    from finllm.sessions.trading import CONFIRMED, check_proportion
    from finllm.tools.pnl.trades import after_trades, parse_trades

    if len(line.words) not in (2, 3) or line.words[2:] not in ((), (CONFIRMED,)):
        raise misused(line.verb)
    known = [one.id for one in request.portfolio.positions]
    id = next((one for one in known if one.casefold() == line.words[0].casefold()), line.words[0])
    (trade,) = parse_trades([f"{id}={line.words[1]}"])
    try:
        portfolio = after_trades(request.portfolio, [trade], hand.market)
    except InputError as error:
        close = nearest(id, [*known, *hand.market.names()])
        error.fix = f"did you mean {', '.join(close)}? {error.fix}" if close else error.fix
        raise
    if not line.words[2:]:
        check_proportion(request, portfolio, id, trade.quantity, hand.market)
    before = {one.id: one for one in request.scenario.trades}
    quantity = trade.quantity + (before[id].quantity if id in before else 0.0)
    entry = {"id": id, "quantity": quantity, "because": line.because, "by": hand.who}
    others = [one.model_dump(mode="json") for one in request.scenario.trades if one.id != id]
    return _with(request, trades=[*others, *([entry] if quantity else [])]).model_copy(update={"portfolio": portfolio})


def _replay(request: RunRequest, line: Line, hand: Hand) -> RunRequest:
    from finllm.sessions.stress import parse_replay
    from finllm.tools.pnl.episodes import EPISODES, episode

    del hand
    if len(line.words) != 1:
        raise InputError("which episode?", fix=f"use one of {', '.join(EPISODES)}, START:END, or off")
    if line.words[0] == "off":
        return _with(request, replay=None)
    window = parse_replay(line.words[0])
    if isinstance(window, str):
        window = episode(window).start, episode(window).end
    assert window is not None
    return _with(request, replay={"start": window[0], "end": window[1]})


_EDITS: dict[str, Callable[[RunRequest, Line, Hand], RunRequest]] = {
    "story": _story, "source": _source, "shock": _shock, "read": _read, "accept": _dispute, "withhold": _dispute,
    "horizon": _horizon, "level": _level, "hold": _hold, "complete": _hold, "currency": _currency, "limits": _limits,
    "trade": _trade, "replay": _replay,
}  # fmt: skip


def _factor(name: str, request: RunRequest, hand: Hand) -> str:
    """A factor or a series by its name, whatever the case. Errors: InputError with the nearest."""
    from finllm.tools.pnl.asked import scenario_factors

    known = scenario_factors(request.scenario, hand.market, request.portfolio)
    found = known.called(name)
    if found in known or found in hand.market:
        return found
    folded = {one.casefold(): one for one in hand.market.names()}
    if name.casefold() in folded:
        return folded[name.casefold()]
    close = nearest(name, [*known.drivers, *hand.market.names()])
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise InputError(f"no factor {clean(name)[:64]!r}", fix=f"{hint}the factors are {', '.join(known.drivers)}")


def _with(request: RunRequest, **changes: Any) -> RunRequest:
    return request.model_copy(update={"scenario": _valid(request.scenario, changes)})


def _valid(scenario: Scenario, changes: dict[str, Any]) -> Scenario:
    """The scenario with changes, as its own rules allow. Errors: InputError in a user's words."""
    return _made({**scenario.model_dump(mode="json"), **changes})


def _made(data: dict[str, Any], model: Any = None) -> Any:
    from pydantic import ValidationError

    from finllm.tools.data.scenario import Scenario
    from finllm.tools.data.yaml_files import plain_words

    try:
        return (model or Scenario).model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        said = plain_words(first)
        raise InputError(f"{where}: {said}" if where else said, fix="correct it and type it again") from error

"""Everything a run is asked to do, checked before a model is loaded or a file is written."""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finllm.errors import InputError, LookAheadError
from finllm.files import check_folder
from finllm.scenarios import PORTFOLIOS_DIR, SCENARIOS_DIR
from finllm.sessions.inputs import find_limits, is_future, limitable, open_market, thresholds_of, wanted_currency
from finllm.settings import load_settings

if TYPE_CHECKING:
    from finllm.desk.request import OnUnresolved, RunRequest
    from finllm.guardrails.approval import Approval
    from finllm.settings import Settings
    from finllm.tools.data.books.position import Portfolio
    from finllm.tools.data.market import MarketStore
    from finllm.tools.data.scenario import BudgetEntry, Scenario


@dataclass(frozen=True)
class Checked:
    """A valid request, and what the user should know about how it was put together."""

    request: RunRequest
    notes: tuple[str, ...]


def shipped_scenarios() -> dict[str, Path]:
    """The scenarios that come with finllm, by name."""
    return {path.stem: path for path in sorted(SCENARIOS_DIR.glob("*.yaml"))}


def find_scenario(name: str) -> Path:
    """A file of that path, or the shipped scenario of that name. Errors: InputError where there is neither."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = shipped_scenarios()
    stem = name.removesuffix(".yaml")
    if stem in shipped:
        return shipped[stem]
    if path.is_dir():
        raise InputError(f"{name!r} is a folder", fix="give one scenario file of it")
    close = difflib.get_close_matches(Path(stem).name, shipped, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise InputError(f"no scenario {name!r}: neither a file nor a shipped scenario",
                     fix=f"{hint}'finllm scenarios list' shows those shipped")  # fmt: skip


def build_request(
    scenario: str, *, portfolio: Path | None = None, limits: Path | None = None, prices: Sequence[Path] = (),
    as_of: dt.date | None = None, budget: BudgetEntry | None = None, seed: int = 0,
    on_unresolved: OnUnresolved = "withhold", factors: Sequence[str] = (), propagate: bool | None = None,
    currency: str | None = None, age: bool | None = None,
) -> Checked:  # fmt: skip
    """Read and check a run's inputs. `factors` add to what the scenario says; `propagate`, `currency` and `age` go
    before it.

    Errors: InputError or LookAheadError naming what is wrong, where, and the mend.
    """
    from finllm.tools.data.scenario import load_scenario

    path = find_scenario(scenario)
    return _built(load_scenario(path), path, portfolio, limits, prices, as_of, budget, seed, on_unresolved, factors,
                  propagate, currency, age)  # fmt: skip


def build_told(
    story: str, *, portfolio: Path | None = None, limits: Path | None = None, prices: Sequence[Path] = (),
    as_of: dt.date | None = None, seed: int = 0, currency: str | None = None,
) -> Checked:  # fmt: skip
    """The request of a story told in plain words: no sources, no shocks, a month ahead, as of the last day of the data.

    Errors: as `build_request`.
    """
    from finllm.sessions.edits import told_story
    from finllm.sessions.inputs import last_day

    day = as_of or last_day(open_market(prices))
    return _built(told_story(story, day), None, portfolio, limits, prices, None, None, seed, "withhold", (), None,
                  currency, None)  # fmt: skip


def _built(
    story: Scenario, path: Path | None, portfolio: Path | None, limits: Path | None, prices: Sequence[Path],
    as_of: dt.date | None, budget: BudgetEntry | None, seed: int, on_unresolved: OnUnresolved, factors: Sequence[str],
    propagate: bool | None, currency: str | None, age: bool | None,
) -> Checked:  # fmt: skip
    """`path`: the scenario's file, None of one that was typed."""
    from finllm.desk.request import PriceFile, RunRequest
    from finllm.guardrails.approval import why_not
    from finllm.tools.data.books.load import load_portfolio
    from finllm.tools.data.books.mapping import beside
    from finllm.tools.data.books.valuation import value_portfolio
    from finllm.tools.pnl.asked import scenario_factors, scenario_shocks
    from finllm.tools.pnl.shocks import plan_shocks
    from finllm.tools.pnl.sizes import FactorView

    named = f"{path}: " if path is not None else ""
    story = story.model_copy(update={
        "as_of": as_of or story.as_of, "budget": merge_budgets(story.budget, budget),
        "factors": tuple(dict.fromkeys([*story.factors, *factors])),
        "propagate": story.propagate if propagate is None else propagate,
        "age": story.age if age is None else age, "currency": wanted_currency(currency or story.currency),
    })  # fmt: skip
    if story.replay is not None and story.replay.end > story.as_of:
        end = story.replay.end
        raise LookAheadError(f"{named}field 'replay.end': the replay ends on {end}, after as_of {story.as_of}",
                             fix=f"set 'as_of' to {end} or later, or end the replay earlier")  # fmt: skip
    book = portfolio or PORTFOLIOS_DIR / "default.csv"
    held = load_portfolio(book)
    files = tuple(PriceFile.of(file) for file in prices)
    market = open_market([file.unchanged() for file in files])
    held = with_trades(held, story, market)
    value_portfolio(held, market, story.as_of, wanted_currency(story.currency))
    try:
        known = scenario_factors(story, market, held)
        user = scenario_shocks(story, known)
        plan_shocks(FactorView(known, market, story.as_of), story.horizon, user=user)
    except InputError as error:
        raise InputError(f"{named}{error.message}", fix=error.fix) from error
    allowed = find_limits(limits, portfolio, limitable(known, market), wanted_currency(story.currency))
    maps = (beside(book),) if beside(book).is_file() else ()
    read = (*((path,) if path is not None else ()), book, *maps, *((allowed.file,) if allowed.file else ()))
    approval = _approval(story)
    request = RunRequest(scenario=story, portfolio=held, limits=allowed.limits, prices=files, seed=seed,
                         on_unresolved=on_unresolved, files=tuple(PriceFile.of(file) for file in read),
                         thresholds=thresholds_of(load_settings().settings),
                         future=is_future(story.as_of), approval=approval)  # fmt: skip
    unapproved = why_not(story.model_dump(mode="json"), approval)
    return Checked(request, (*allowed.notes, *([unapproved] if unapproved else [])))


def _approval(story: Scenario) -> Approval | None:
    """What the scenario's approval leads to on record. Errors: RecordError."""
    from finllm.guardrails.approval import is_review, on_record
    from finllm.guardrails.audit.reading import open_reading

    settings = load_settings().settings
    if not is_review(story.approved_by) or not settings.ledger_path.exists():
        return None
    with open_reading(settings) as ledger:
        return on_record(story.approved_by, ledger)


def with_trades(held: Portfolio, story: Scenario, market: MarketStore) -> Portfolio:
    """The book with the trades that a scenario holds. Errors: InputError for one that cannot be done."""
    from finllm.tools.pnl.trades import Trade, after_trades

    if not story.trades:
        return held
    return after_trades(held, [Trade(one.id, one.quantity) for one in story.trades], market)


def merge_budgets(base: BudgetEntry | None, over: BudgetEntry | None) -> BudgetEntry | None:
    """`base` with the limits that `over` gives in place of its own."""
    if base is None or over is None:
        return over or base
    return base.model_copy(update=over.model_dump(exclude_none=True))


def check_all(scenarios: Sequence[str], build: Callable[[str], Checked]) -> dict[str, Checked]:
    """The checked request of every scenario, by its name in a batch.

    Errors: one InputError that names every scenario that cannot be run, and why.
    """
    found: dict[str, Checked] = {}
    seen: dict[Path, str] = {}
    problems: dict[str, list[str]] = {}
    for scenario in scenarios:
        try:
            path = find_scenario(scenario).resolve()
            if path in seen:
                raise InputError(f"{scenario!r} is given twice, first as {seen[path]!r}", fix="give it once")
            seen[path] = scenario
            found[scenario] = build(scenario)
        except InputError as error:
            problems.setdefault(f"{error.message} ({error.fix})", []).append(scenario)
    if problems:
        lines = [problem if len(of) == 1 else f"{len(of)} scenarios: {problem}" for problem, of in problems.items()]
        bad = sum(map(len, problems.values()))
        raise InputError("\n".join([f"{bad} of {len(scenarios)} scenarios cannot be run, and none was:", *lines]),
                         fix="correct or leave out what is named, then run the command again")  # fmt: skip
    stems = [Path(name).stem for name in found]
    return {stem if stems.count(stem) == 1 else name: one
            for stem, (name, one) in zip(stems, found.items(), strict=True)}  # fmt: skip


def check_books(
    scenarios: Sequence[str], books: Sequence[Path | None], build: Callable[[str, Path | None], Checked]
) -> dict[str, Checked]:
    """The checked request of every scenario on every book; of several books the name says which. Errors: InputError."""
    from finllm.sessions.batch_report import on

    stems = [book.stem for book in books if book is not None]
    if twice := next((stem for stem in stems if stems.count(stem) > 1), None):
        raise InputError(f"two books are named {twice!r}", fix="give each file a name of its own")
    found: dict[str, Checked] = {}
    for book in books:
        checked = check_all(scenarios, lambda scenario, book=book: build(scenario, book))
        found |= {
            name + (on(one.request.portfolio.name) if len(books) > 1 else ""): one for name, one in checked.items()
        }
    return found


def check_model(settings: Settings) -> None:
    """The model file and the precisions asked for can be used, and the home can be written. Loads no model."""
    from finllm.models.ladder import PRECISIONS
    from finllm.models.registry import default_source
    from finllm.scheduler.placement.task import PRECISIONS as SERVED

    check_folder(settings.home, "FINLLM_HOME")
    for name in ("edge_precision", "deep_precision"):
        if (precision := getattr(settings, name)) not in PRECISIONS:
            raise InputError(f"setting {name!r} is {precision!r}, which cannot be derived",
                             fix=f"set FINLLM_{name.upper()} to one of {', '.join(PRECISIONS)}")  # fmt: skip
    if settings.vllm_precision not in SERVED:
        raise InputError(f"setting 'vllm_precision' is {settings.vllm_precision!r}, which is no precision",
                         fix=f"set FINLLM_VLLM_PRECISION to one of {', '.join(SERVED)}")  # fmt: skip
    default_source(settings)

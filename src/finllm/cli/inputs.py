"""Everything a run is asked to do, checked before a model is loaded or a file is written."""

from __future__ import annotations

import datetime as dt
import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finllm.errors import InputError, LookAheadError
from finllm.scenarios import PORTFOLIOS_DIR, SCENARIOS_DIR

if TYPE_CHECKING:
    from finllm.desk.request import OnUnresolved, RunRequest
    from finllm.settings import Settings
    from finllm.tools.data.portfolio import Limits
    from finllm.tools.data.scenario import BudgetEntry


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
    scenario: str, *, portfolio: Path | None, limits: Path | None, prices: Sequence[Path], as_of: dt.date | None,
    budget: BudgetEntry | None, seed: int, on_unresolved: OnUnresolved,
) -> Checked:  # fmt: skip
    """Read and check a run's inputs. Errors: InputError or LookAheadError naming what is wrong, where, and the mend."""
    from finllm.cli.options import merge_budgets
    from finllm.desk.request import PriceFile, RunRequest
    from finllm.tools.data.market import MarketStore
    from finllm.tools.data.portfolio import load_portfolio, value_portfolio
    from finllm.tools.data.scenario import load_scenario

    path = find_scenario(scenario)
    story = load_scenario(path)
    story = story.model_copy(update={"as_of": as_of or story.as_of, "budget": merge_budgets(story.budget, budget)})
    if story.replay is not None and story.replay.end > story.as_of:
        end = story.replay.end
        raise LookAheadError(f"{path}: field 'replay.end': the replay ends on {end}, after as_of {story.as_of}",
                             fix=f"set 'as_of' to {end} or later, or end the replay earlier")  # fmt: skip
    held = load_portfolio(portfolio or PORTFOLIOS_DIR / "default.csv")
    allowed, notes = limits_for(limits, portfolio)
    files = tuple(PriceFile.of(file) for file in prices)
    value_portfolio(held, MarketStore([file.unchanged() for file in files]), story.as_of)
    read = (path, portfolio or PORTFOLIOS_DIR / "default.csv", *limits_file(limits, portfolio))
    request = RunRequest(scenario=story, portfolio=held, limits=allowed, prices=files, seed=seed,
                         on_unresolved=on_unresolved, files=tuple(PriceFile.of(file) for file in read))  # fmt: skip
    return Checked(request, notes)


def limits_file(limits: Path | None, portfolio: Path | None) -> tuple[Path, ...]:
    """The file that the limits come from, if there is one."""
    found = limits or (portfolio.parent if portfolio else PORTFOLIOS_DIR) / "limits.yaml"
    return (found,) if found.is_file() else ()


def limits_for(limits: Path | None, portfolio: Path | None) -> tuple[Limits, tuple[str, ...]]:
    """The limits asked for; else those beside the portfolio; else none, said so."""
    from finllm.tools.data.portfolio import Limits, load_limits

    if limits is not None:
        return load_limits(limits), ()
    beside = (portfolio.parent if portfolio else PORTFOLIOS_DIR) / "limits.yaml"
    if beside.is_file():
        return load_limits(beside), (f"limits are those of {str(beside)!r}",) if portfolio else ()
    return Limits(version="none"), (f"no limits: there is no {str(beside)!r} and no --limits; nothing can be breached",)


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


def check_folder(folder: Path, what: str) -> None:
    """The folder is there and writable, or could be made. Makes nothing. Errors: InputError."""
    fix = f"give {what} a folder that you may write to"
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise InputError(f"{what} {str(folder)!r}: {str(existing)!r} is not a folder", fix=fix)
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{what} {str(folder)!r}: {str(existing)!r} cannot be written", fix=fix)

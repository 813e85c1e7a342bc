"""A version kept outside its session: as a scenario file with its lineage, or put to review."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from finllm.errors import InputError
from finllm.files import write_file

if TYPE_CHECKING:
    from finllm.desk.request import RunRequest
    from finllm.memory.review_rows import ReviewRow
    from finllm.sessions.session import Session
    from finllm.tools.data.scenario import Scenario


EMPTY = "approved_by is empty: only a signed review fills it"
"""What is said of a scenario that nobody approved."""


def saved(session: Session, path: Path) -> str:
    """Write the version in hand as a scenario file; the command that runs it on the same book.

    Errors: InputError for a name that is no YAML file's, or a file that is there; FinllmError where it cannot be.
    """
    from finllm.tools.data.scenario import Lineage

    if path.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"{str(path)!r} is no name of a scenario", fix="let it end with .yaml")
    if path.exists():
        raise InputError(f"{str(path)!r} is there already", fix="choose another name, or remove it first")
    check_place(path)
    version = session.version
    lineage = Lineage(session=session.id, version=version.number, run=version.run, by=session.who)
    scenario = version.request.scenario.model_copy(update={"lineage": lineage, "approved_by": approved_as(session)})
    write_file(path, as_yaml(scenario).encode(), fix="choose another file, or free some space")
    return run_command(path, version.request)


def check_place(path: Path) -> None:
    """That the folder of a file is there: none is made unasked. Errors: InputError."""
    if not path.parent.is_dir():
        raise InputError(
            f"there is no folder {str(path.parent)!r}", fix=f"make it first: mkdir -p {shlex.quote(str(path.parent))}"
        )


def approved_as(session: Session) -> str | None:
    """The review that approved the version in hand."""
    from finllm.guardrails.approval import on_record
    from finllm.memory.review_record import reviews

    ledger, run = session.desk.ledger, session.version.run
    found = (one.id for one in reviews(ledger) if one.run == run)
    return next((id for id in found if on_record(id, ledger) is not None), None)


def as_yaml(scenario: Scenario) -> str:
    """A scenario as the YAML that reads back as the same."""
    import yaml

    told = {name: value for name, value in scenario.model_dump(mode="json", exclude_none=True).items()
            if value not in ((), [])}  # fmt: skip
    lineage = told.get("lineage")
    head = ""
    if isinstance(lineage, dict):
        head = (f"# version {lineage['version']} of session {lineage['session']}\n"
                + ("" if scenario.approved_by else f"# {EMPTY}\n"))  # fmt: skip
    return head + yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=100)


def run_command(path: Path, request: RunRequest) -> str:
    """What runs the file on the version's book, prices and limits."""
    from finllm.scenarios import PORTFOLIOS_DIR

    parts = ["finllm", "run", str(path)]
    book = Path(unquote(urlsplit(request.portfolio.uri).path))
    if book != (PORTFOLIOS_DIR / "default.csv").resolve():
        parts += ["--portfolio", str(book)]
    limits = [file.path for file in request.files if file.path.endswith((".yaml", ".yml")) and "limit" in file.path]
    if limits and Path(limits[-1]).resolve() != (book.parent / "limits.yaml").resolve():
        parts += ["--limits", limits[-1]]
    for file in request.prices:
        parts += ["--prices", file.path]
    if request.seed:
        parts += ["--seed", str(request.seed)]
    return shlex.join(parts)


def put(session: Session, why: str) -> ReviewRow:
    """Put the version in hand to review: its report by digest, who asks and why, and the minutes of the moment."""
    from finllm.memory.reviews import reviews_of
    from finllm.processes import login
    from finllm.sessions.minutes import minutes

    session.may_write()
    version, desk = session.version, session.desk
    return reviews_of(desk.ledger, desk.settings).put(
        session.id, version.number, version.run, who=session.who, login=login(), why=why, minutes=minutes(session, "md")
    )

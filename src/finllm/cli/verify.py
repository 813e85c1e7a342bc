"""`finllm verify`: report files held against the record: intact, changed and in which numbers, or unknown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finllm.cli.audit import SHOWN, LogOption, WitnessOption
from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.options import JsonFlag, examples
from finllm.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from finllm.guardrails.audit import Verification
    from finllm.review.verify import FileVerdict

CODES = {"changed": 1, "unknown": 4, "intact": 0}
"""Exit codes, those of `audit verify`: of several files the first of these that one of them has."""


def add_to(app: typer.Typer) -> None:
    app.command("verify", epilog=examples(
        "finllm verify report.html", "finllm verify out --witness /mnt/usb/witness --json",
    ))(verify)  # fmt: skip


def verify(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Report files, wherever they were copied to, or a folder of "
                                                           "them.")],
    witness: WitnessOption = None,
    log: LogOption = None,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Say whether report files are as a run on record wrote them, and which numbers differ where they are not.

    The log is verified first, then each file is sought in it by its digest, and by the run that it names; what was
    changed is told by rendering the report again from its record. Exits with 0 where all are intact, with 1 where one
    was changed or the log is damaged, with 4 where none was changed and no run on record wrote one of them.
    """
    import contextlib

    from finllm.cli.history import reading
    from finllm.errors import InputError
    from finllm.guardrails.audit import LogReader, read_witnessed, verify_log
    from finllm.guardrails.audit.home import written_files
    from finllm.review.verify import Verifier, files_of

    settings = load_settings().settings
    paths = files_of(files)
    if missing := [path for path in paths if not path.exists()]:
        raise InputError(f"there is no file {str(missing[0])!r}", fix="name a report file, or a folder of them")
    folder = log or settings.audit_dir
    verdict = verify_log(folder, None if witness is None else read_witnessed(witness))
    found: list[FileVerdict] = []
    if not verdict.damage:
        with contextlib.nullcontext() if log else reading(settings) as ledger:
            held = Verifier(tuple(written_files(LogReader(folder))), ledger)
            found = [held.verify(path) for path in paths]
    worst = min((one.status for one in found), key=list(CODES).index, default="changed")
    status = "damaged" if verdict.damage else worst
    if as_json:
        damage = [vars(one) for one in verdict.damage]
        print_json({"status": status, "log": str(folder), "witnessed": verdict.witnessed, "damage": damage,
                    "files": [one.to_json() for one in found]})  # fmt: skip
    else:
        _show(verdict, found)
    if code := CODES.get(status, 1):
        raise typer.Exit(code)


def _show(verdict: Verification, found: Sequence[FileVerdict]) -> None:
    from rich.console import Group

    from finllm.cli.display.report import text

    if verdict.first is not None:
        out_console().print(text(f"the audit log is DAMAGED at record {verdict.first.index}: {verdict.first.kind}; "
                                 "no file was held against it", "bold red"))  # fmt: skip
        return
    parts = [line for one in found for line in _told(one)]
    if verdict.witnessed is None:
        parts.append(text("no witness says that the log was not written anew: give --witness", "dim"))
    out_console().print(Group(*parts))


def _told(one: FileVerdict) -> list[RenderableType]:
    from finllm.cli.display.report import text

    if one.status == "intact":
        return [text(f"{one.file}: intact, as run {one.run} wrote its {one.seems} (record {one.record})", "green")]
    if one.status == "unknown":
        return [text(f"{one.file}: unknown: {'; '.join(one.notes)}", "yellow")]
    lines = [text(f"{one.file}: CHANGED since run {one.run} wrote its {one.seems} (record {one.record})", "bold red")]
    lines += [text(f"  {change.words}", "red") for change in one.differing[:SHOWN]]
    if (more := len(one.differing) - SHOWN) > 0:
        lines.append(text(f"  and {more} more: --json names them", "red"))
    return [*lines, *(text(f"  note: {note}", "dim") for note in one.notes)]

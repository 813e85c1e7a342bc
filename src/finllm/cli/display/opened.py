"""Rows of evidence opened, for `finllm trace --evidence`: as text, Markdown or JSON; what differs makes it exit 1."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from finllm.cli.display.terminal import print_json
from finllm.errors import FinllmError, InputError
from finllm.plain_text import clean
from finllm.settings import Settings

if TYPE_CHECKING:
    from finllm.cli.history import Form
    from finllm.review.opened_rows import OpenedRow


def show_opened(run_id: str, ids: Sequence[str], settings: Settings, *, rebuild: bool, form: Form | None) -> None:
    """Print the rows, opened. Errors: InputError for an unknown row; Exit(1) where one is not what it says."""
    from finllm.cli.history import reading
    from finllm.review.opened import Opener
    from finllm.review.opened_lines import opened_markdown, opened_text

    if form == "html":
        raise InputError("an opened row has no HTML form", fix="leave --format out, or give md or json; 'finllm trace "
                         f"{run_id} --format html' is the whole story")  # fmt: skip
    with reading(settings) as ledger:
        row = ledger.run(run_id) if ledger else None
        assert ledger is not None
        assert row is not None
        opener = Opener(row, ledger, settings)
        found = [opener.open(id.upper()) for id in ids]
        if rebuild and any(one.recomputed is None for one in found):
            opener.rebuilt = _rebuilt(run_id, settings)
            found = [opener.open(one.row.id) for one in found]
    if form == "json":
        print_json({"run": run_id, "opened": [_json(one) for one in found]})
    else:
        tell = opened_markdown if form == "md" else opened_text
        print("\n\n".join("\n".join(tell(one)) for one in found))
    if not all(one.sound for one in found):
        raise typer.Exit(1)


def _json(one: OpenedRow) -> dict[str, object]:
    return {**one.model_dump(mode="json"), "sound": one.sound}


def _rebuilt(run_id: str, settings: Settings) -> Mapping[str, float | str]:
    from finllm.review.rebuilt import rebuilt_values

    print("doing the tools of the run again, on its record", file=sys.stderr)
    try:
        return rebuilt_values(run_id, settings)
    except FinllmError as error:
        print(clean(f"they cannot be done again: {error.message}; {error.fix}"), file=sys.stderr)
        return {}

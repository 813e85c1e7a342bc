"""`finllm data import fed`: the Federal Reserve's own files become series that every command uses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.options import JsonFlag, examples, help_if_alone
from finllm.files import check_folder
from finllm.sessions.inputs import fed_folder
from finllm.settings import load_settings


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Market data beyond what comes with finllm.", epilog=examples(
        "finllm data import fed downloads/", "finllm data import fed downloads/ --json"))  # fmt: skip
    group.callback(invoke_without_command=True)(help_if_alone)
    sources = typer.Typer(help="Read files that you downloaded into $FINLLM_HOME/data. Nothing is fetched.")
    sources.callback(invoke_without_command=True)(help_if_alone)
    sources.command("fed", epilog=examples("finllm data import fed downloads/"))(fed)
    group.add_typer(sources, name="import")
    app.add_typer(group, name="data")


def fed(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with the Federal Reserve's CSV tables.")],
    as_json: JsonFlag = False,
) -> None:
    """Import the supervisory scenario tables: 28 quarterly variables since 1976, and the severely adverse path.

    From then on every command and new run of this home uses them for rates, spreads, house prices and the dollar.
    """
    from finllm.tools.data.fed import import_fed

    settings = load_settings().settings
    check_folder(settings.home, "FINLLM_HOME")
    done = import_fed(folder, fed_folder(settings))
    if as_json:
        print_json(done.model_dump(mode="json"))
        return
    from finllm.cli.display.report import table, text

    console = out_console()
    path = f", and a path of {done.path_quarters} quarters" if done.path_quarters else ""
    console.print(text(f"{done.variables} variables over {done.quarters} quarters, {done.first} to {done.last}{path}, "
                       f"are in {done.folder}"))  # fmt: skip
    console.print(table(("file", "sha256"), [(name, digest) for name, digest in done.sources.items()]))

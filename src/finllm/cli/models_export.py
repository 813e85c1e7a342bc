"""`finllm models export hf`: the model as a folder that vLLM serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.options import JsonFlag, examples, help_if_alone
from finllm.settings import load_settings


def add_to(group: typer.Typer) -> None:
    """Attach `export` to the group of `finllm models`."""
    export = typer.Typer(
        help="Write the model in another format.", epilog=examples("finllm models export hf served/smollm2")
    )
    export.callback(invoke_without_command=True)(help_if_alone)
    export.command("hf", epilog=examples("finllm models export hf served/smollm2", "vllm serve served/smollm2"))(
        export_hf
    )
    group.add_typer(export, name="export")


def export_hf(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; an earlier export is replaced.")],
    as_json: JsonFlag = False,
) -> None:
    """Write the model of the ladder as a Hugging Face folder in BF16, for 'vllm serve'."""
    from finllm.models import hf_export
    from finllm.models.registry import default_source

    done = hf_export.export_hf(default_source(load_settings().settings), folder)
    if as_json:
        print_json(done.model_dump(mode="json"))
        return
    from finllm.cli.display.report import text

    million = done.parameters / 1e6
    out_console().print(text(
        f"{done.architecture}, {million:.0f} million parameters in {done.precision}, is in {done.folder}; "
        f"serve it with 'vllm serve {done.folder}'"))  # fmt: skip

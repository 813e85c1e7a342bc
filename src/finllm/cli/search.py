"""`finllm runs search`: words sought in the traces and source texts of all runs on record, with the place of each."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from finllm.cli.display.terminal import print_json
from finllm.cli.options import JsonFlag, examples
from finllm.plain_text import clean
from finllm.settings import load_settings

if TYPE_CHECKING:
    from finllm.review.search import Found

SHOWN = 20
"""Hits that are listed unless told otherwise."""


def add_to(group: typer.Typer) -> None:
    group.command("search", epilog=examples(
        "finllm runs search convoy", "finllm runs search '\"rule limits\"' --limit 5",
        "finllm runs search OIL_WTI --json",
    ))(search)  # fmt: skip


def search(
    words: Annotated[
        list[str], typer.Argument(metavar="WORDS...", help="Words that a place must have, all of them; in quotes side "
                                  "by side; with a * behind it, the beginning of one.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=500, metavar="N", help="The N best hits.")] = SHOWN,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Seek words in sources, judgements, dissent, reasons and claims of the runs that ended; the best hits first.

    What several runs say is told once, with the newest of them.
    """
    from finllm.cli.history import reading
    from finllm.review.search import FoundAll
    from finllm.review.search import search as seek

    settings = load_settings().settings
    with reading(settings) as ledger:
        none = FoundAll(found=(), more=0, unsearched=0)
        found = none if ledger is None else seek(" ".join(words), ledger, settings, limit)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    print("\n".join(line for one in found.found for line in _lines(one)) or "None.")
    if found.more:
        again = shlex.join(words)
        print(f"{found.more:,} more: finllm runs search {again} --limit {min(len(found.found) + found.more, 500)}")
    if found.unsearched:
        print(f"{found.unsearched:,} older runs are not searched yet: the same command goes on with them")
    for note in found.notes:
        print(clean(note))


def _lines(one: Found) -> list[str]:
    place = f"{one.place} [{one.row}]" if one.row else one.place
    also = f", and in {one.also:,} more" if one.also else ""
    shown = "".join(f"«{piece.text}»" if piece.hit else piece.text for piece in one.words)
    return [f"{clean(one.run)}  {clean(place)}{also}", f"  {clean(shown)}"]

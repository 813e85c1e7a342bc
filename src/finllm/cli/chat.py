"""`finllm chat`: questions about a run in plain words, answered from its rows of evidence and from the record alone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from finllm.cli.display.terminal import print_json
from finllm.cli.history import reading
from finllm.cli.options import JsonFlag, examples
from finllm.plain_text import clean_lines
from finllm.settings import load_settings

if TYPE_CHECKING:
    from finllm.chat.chat import Chat, Reply


def add_to(app: typer.Typer) -> None:
    app.command(epilog=examples(
        "finllm chat",
        'finllm chat --ask "who loses most and why"',
        'finllm chat --run 20220630-081500-hormuz-closed-for-a-month-1f3a --ask "what did the navy say" --json',
        'finllm chat --ask "what if oil goes up 60%" --yes',
    ))(chat)  # fmt: skip


def chat(
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="The run to ask about.  \\[default: the newest ended]")
    ] = None,
    ask: Annotated[
        list[str] | None, typer.Option("--ask", metavar="TEXT", help="A question; print its answer and leave. May be "
                                                                     "repeated: what follows may bind to it.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Compute what a question asks for without asking "
                                                          "first.")] = False,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Ask about a run in plain words: every figure names its row, and what nothing on record answers is refused.

    Without --ask, at a terminal, it is a talk: `?` shows what can be asked, Ctrl-D leaves. Elsewhere each line of stdin
    is a question. No language model is asked. Exits with 0 where a question is refused too.
    """
    from finllm.chat.opening import open_chat

    with reading(load_settings().settings) as ledger:
        opened = open_chat(ledger, load_settings().settings, run)
        if ask is None and not as_json and sys.stdin.isatty() and sys.stdout.isatty():
            from finllm.cli.chat_talk import talk

            talk(opened)
            return
        for text in ask if ask is not None else sys.stdin:
            if text.strip():
                show(opened.ask(text, confirmed=yes), opened, as_json=as_json)


def show(reply: Reply, opened: Chat, *, as_json: bool) -> None:
    """A reply on stdout."""
    if as_json:
        print_json(reply.to_json())
    else:
        print("\n".join(told(reply, opened)))
    sys.stdout.flush()


def told(reply: Reply, opened: Chat) -> list[str]:
    """A reply as lines of text: what was understood, the answer, what else it might mean, and what repeats it."""
    lines: list[str] = []
    if reply.understood is not None:
        lines.append(f"understood: {reply.understood.words} · {opened.table.report.title}")
    lines += [f"  {line}" for line in reply.lines]
    if reply.near:
        from finllm.chat.catalogue import catalogue

        offered = "  ".join(f"{at} {catalogue()[kind].says}" for at, (kind, _) in enumerate(reply.near, 1))
        lines.append(f"{'not this?' if reply.understood else 'near it:'}  {offered}")
    if reply.asks:
        lines.append("answer y to compute it, or add --yes")
    if reply.command is not None:
        lines.append(f"repeat: {reply.command}")
    return [clean_lines(line) for line in lines]

"""The subcommands by name: the module of each and its line in `finllm --help`; a module is imported when it is called.

So the help page, a typing mistake and the completion of a name wait for no command's imports.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

HELP = {
    "run": "Run stress tests: what the event would do to the portfolio, through which factors, and how sure that is.",
    "resume": "Go on with a run that was stopped, killed or waits for an answer, or with a batch and its runs that "
              "failed.",
    "session": "Open a live session: edit the story, sources, shocks and the book, undo, compare, hedge, save, put to "
               "review.",
    "chat": "Ask about a run in plain words: every figure names its row, and what nothing on record answers is "
            "refused.",
    "mcp": "Serve the chat's catalogue and the stress test as tools of the Model Context Protocol, runs as resources.",
    "serve": "Serve the desk: queue, items, runs down to any number's source, sessions, the state of the record.",
    "stress": "Stress a portfolio: P&L by position, factor, sector and horizon, its interval, VaR and ES, and the "
              "breaches.",
    "reverse": "Find the most plausible shocks that lose the amount: several distinct answers, each revalued in full.",
    "hedge": "Find the cheapest trades that bring a loss, a VaR or a factor under its limit, with what a"
             " calm month costs.",
    "backtest": "Replay eight known windows with sensitivities of the day before and only the observed factor moves.",
    "signals": "Show what the market said after the close of a day: its regime, stress index, each factor's state and "
               "forecasts.",
    "verify": "Say whether report files are as a run on record wrote them, and which numbers differ where they are "
              "not.",
    "trace": "Print the story of a run: the verdict, each claim with its evidence, who judged what, what was blocked, "
             "costs.",
    "replay": "Rebuild a run's state from its record, byte for byte; refuse where an input, a prompt or the weights "
              "differ.",
    "diff": "Say what two runs differ in: inputs, prompts, weights, placements and judgements; and what that changed.",
    "explain": "Explain a run that ended: each judgement is asked again without a line of its evidence, beside the "
               "result.",
    "refine": "Verify a run that ended: every judgement is asked for at the deep tier's precision.",
    "read": "Show how an event is read: the channels by which it reaches markets, each with its sentence; each field "
            "of the event; and every factor with the channels that move it, beside what the text's own words and past "
            "events say.",
    "nodes": "Show the backends, their queues, batches and circuits, the broker's prices, and the last calibration.",
    "deploy": "Try a new version on copies of live calls, serve it in one step, or take it back; every step is on"
              " record.",
    "energy": "Show what calls on record used: joules, gCO₂e and both per forecast, each measured, modelled or from a"
              " table.",
    "cluster": "Nodes that answer together: calls go to their backends, every answer is signed. See docs/cluster.md.",
    "calibrate": "Measure speed, memory, energy and each agent's quality for every rung, on this machine.",
    "simulate": "Play a trace through placement policies: the code that places live, on backends as they were "
                "calibrated.",
    "eval": "Score a model: each agent on its packaged probes, or one task on a labelled file.",
    "doctor": "Check the installation without loading a model. Exits with 1 if something is missing or does not "
              "answer.",
    "portfolio": "Portfolios: how a file is understood.",
    "pnl": "Profit and loss between two versions.",
    "data": "Market data beyond what comes with finllm.",
    "runs": "The runs on record.",
    "audit": "The tamper-evident record of all runs. What it proves and what not: docs/audit.md.",
    "review": "Versions put to review: read them, sign them or send them back. A session's verb `review` puts them "
              "there.",
    "users": "Who may review, in which role. Nobody is there until somebody is added.",
    "scenarios": "The scenarios that come with finllm.",
    "models": "The models that runs may use; FINLLM_MODEL names one.",
    "config": "The settings: defaults, then $FINLLM_HOME/config.toml, then FINLLM_* variables.",
}  # fmt: skip
"""The first paragraph of each command's own help, in the order of the help page."""
MODULES = {"resume": "run", "diff": "replay", "trace": "history", "runs": "history"}
"""Where the module of `finllm.cli` is not named as its command."""


class CommandGroup(TyperGroup):
    """The group behind `finllm`: it knows its commands' help lines, and loads the one that is called."""

    def __init__(self, **given: Any) -> None:
        lines = {name: TyperCommand(name=name, help=line) for name, line in HELP.items()}
        super().__init__(**{**given, "commands": lines})

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, line, rest = super().resolve_command(ctx, args)
        return name, line if name is None else load(name), rest


def module_of(name: str) -> str:
    """The module whose `add_to` adds the command."""
    return f"finllm.cli.{MODULES.get(name, name)}"


def load(name: str) -> Any:
    """Import the module of a command: the command, or the group, as it describes itself."""
    app = typer.Typer()
    import_module(module_of(name)).add_to(app)
    return get_group(app).commands[name]

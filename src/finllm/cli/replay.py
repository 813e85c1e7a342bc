"""`finllm replay` and `finllm diff`: a run rebuilt from its record, and two runs beside each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from finllm import running
from finllm.cli.display.terminal import print_json
from finllm.cli.history import find_run, reading
from finllm.cli.options import JsonFlag, examples
from finllm.interrupts import closing_undisturbed
from finllm.plain_text import clean_lines
from finllm.settings import Settings, load_settings

if TYPE_CHECKING:
    from finllm.review.replay import Regenerated, Replayed

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The id that 'finllm runs list' shows.")]


def add_to(app: typer.Typer) -> None:
    run = "20220630-081500-hormuz-closed-for-a-month-1f3a"
    app.command(epilog=examples(f"finllm replay {run}", f"finllm replay {run} --at validator:2 --json",
                                f"finllm replay {run} --regenerate"))(replay)  # fmt: skip
    app.command(epilog=examples(f"finllm diff {run} 20220701-081500-hormuz-closed-for-a-month-77b0"))(diff)


def replay(
    run_id: RunArgument,
    at: Annotated[
        str | None, typer.Option("--at", metavar="NODE", help="Rebuild the state after this node, or NODE:2 for its "
                                                              "second pass.  \\[default: the last on record]")] = None,
    regenerate: Annotated[
        bool, typer.Option("--regenerate", help="Ask the models again, one call after another, and tell how many "
                                                "answers matched. Nothing is written.")] = False,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Rebuild a run's state from its record, byte for byte; refuse where an input, a prompt or the weights differ."""
    settings = load_settings().settings
    find_run(run_id, settings)
    from finllm.review.rebuilt import record_desk
    from finllm.review.replay import replay as rebuild

    with record_desk(run_id, settings) as desk:
        rebuilt = running.run(rebuild(run_id, desk, at=at))
    asked = _ask_again(run_id, settings) if regenerate else None
    if as_json:
        from finllm.review.replay import regenerated_json

        print_json({"run": run_id, "at": rebuilt.node, "sha256": rebuilt.sha256, "matches_record": True,
                    "hashes": [{"node": node, "sha256": sha256} for node, sha256 in rebuilt.hashes],
                    "not_compared": list(rebuilt.not_compared), "state": rebuilt.state,
                    "regenerated": None if asked is None else regenerated_json(asked)})  # fmt: skip
        return
    print(clean_lines(_told(rebuilt, asked)), end="")


def diff(
    first: Annotated[str, typer.Argument(metavar="RUN1", help="The id that 'finllm runs list' shows.")],
    second: Annotated[str, typer.Argument(metavar="RUN2", help="The run to compare it with.")],
    as_json: JsonFlag = False,
) -> None:
    """Say what two runs differ in: inputs, prompts, weights, placements and judgements; and what that changed."""
    settings = load_settings().settings
    for run_id in (first, second):
        find_run(run_id, settings)
    from finllm.review.diff import diff_runs, diff_story

    with reading(settings) as ledger:
        assert ledger is not None
        found = diff_runs(first, second, ledger)
    if as_json:
        print_json(found.to_json())
    else:
        print(clean_lines(diff_story(found)), end="")


def _ask_again(run_id: str, settings: Settings) -> list[Regenerated]:
    from finllm.events import EventBus
    from finllm.guardrails.audit.reading import open_recorded
    from finllm.review.replay import regenerate
    from finllm.scheduler.backends.kind import Opening
    from finllm.scheduler.backends.registry import open_backends

    with closing_undisturbed() as closing:
        ledger = closing.enter_context(open_recorded(settings, run_id))
        alone = settings.model_copy(update={"slots": 1})  # nothing shared, nothing cached: the same bits each time
        backends = open_backends(Opening(alone, EventBus(), closing))
        return running.run(regenerate(run_id, ledger, backends))


def _told(rebuilt: Replayed, asked: list[Regenerated] | None) -> str:
    lines = [f"Run {rebuilt.run_id}: the state after {rebuilt.node} is rebuilt, byte for byte.",
             f"{len(rebuilt.data)} bytes, sha256 {rebuilt.sha256}", "",
             "Each state on the way is the recorded one"]  # fmt: skip
    lines += [f"  {node}: {sha256}" for node, sha256 in rebuilt.hashes]
    lines += [f"Not compared, the file is gone: {path}" for path in rebuilt.not_compared]
    if asked is not None:
        matched = sum(one.matched for one in asked)
        lines += ["", f"Asked again: {matched} of {len(asked)} answers matched"
                  + (f" ({matched / len(asked):.1%})" if asked else "")]  # fmt: skip
        lines += [f"  {one.node}, {one.agent} by {one.backend}: {one.reason or 'another answer'}"
                  + (", a near-tie" if one.near_tie else "") for one in asked if not one.matched]  # fmt: skip
    return "\n".join(lines) + "\n"

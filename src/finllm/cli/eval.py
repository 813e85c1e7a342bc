"""`finllm eval`: how well a model judges: the packaged probes of every agent, or any labelled file of a stated form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.options import JsonFlag, QuietFlag, examples
from finllm.errors import InputError
from finllm.events import EventBus
from finllm.sessions.requests import check_model
from finllm.settings import Settings, load_settings

if TYPE_CHECKING:
    from finllm.evaluation.evaluate import Evaluated, Opened, TaskName


def add_to(app: typer.Typer) -> None:
    app.command("eval", epilog=examples(
        "finllm eval", "finllm eval other-model.gguf --rung Q8_0",
            "finllm eval --task stance --data sentences.csv --json",
        "finllm eval --task direction --data events.jsonl --with-second-opinion",
    ))(evaluate)  # fmt: skip


def evaluate(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="A GGUF file or registered name.  \\[default: as runs use]")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="What the file labels: stance, direction, event, sanity, validity, "
                     "injection.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FILE", help="CSV with columns text and label, or JSON lines of the same; for "
                     'directions JSON lines {"text", "signs": {"EQUITY_US": "+"}}, signs + - 0.'),
    ] = None,
    model_option: Annotated[str | None, typer.Option("--model", help="The same as MODEL.")] = None,
    rung: Annotated[
        str | None, typer.Option("--rung", metavar="PRECISION", help="Precision to ask.  \\[default: the edge's]")
    ] = None,
    with_second_opinion: Annotated[
        bool | None,
        typer.Option("--with-second-opinion/--without-second-opinion",
                     help="Pool each judgement with the second opinion's.  \\[default: not]"),
    ] = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Score a model: each agent on its packaged probes, or one task on a labelled file.

    Every text is asked through the agent's own prompt and types, as in a run. stance, direction and event go to the
    narrative agent as an event, with the channels that it opens; sanity to the source checks as the only source, and to
    the sanity-checker where they are not sure; injection to the rules and the judge of instructions, by which a run
    cuts, and to no model; validity to the validator: 'Reading: … | Market: … | Notes: …', or a bare text as the notes.
    An abstention counts as wrong.
    """
    if model is not None and model_option is not None and model != model_option:
        raise InputError(f"two models: {model!r} and {model_option!r}", fix="name one")
    if (task is None) != (data is None):
        raise InputError("--task and --data go together", fix="give both, or neither for the packaged probes")
    if with_second_opinion and task is None:
        raise InputError("--with-second-opinion is for a file", fix="give --task and --data")
    settings = load_settings().settings
    if (model or model_option) is not None:
        settings = settings.model_copy(update={"model": Path(str(model or model_option))})
    if rung is not None:
        settings = settings.model_copy(update={"edge_precision": rung})
    check_model(settings)
    if task is None or data is None:
        _probes(settings, as_json=as_json, quiet=quiet)
        return
    asked = _task(task)
    heard = bool(with_second_opinion)
    _file(asked, data, settings, heard, as_json=as_json, quiet=quiet)


def _task(name: str) -> TaskName:
    from finllm.evaluation.evaluate import TaskName

    if name not in list(TaskName):
        raise InputError(f"unknown task {name!r}", fix=f"use one of {', '.join(TaskName)}")
    return TaskName(name)


def _file(task: TaskName, data: Path, settings: Settings, second: bool, *, as_json: bool, quiet: bool) -> None:
    from finllm.cli.display.events import open_display
    from finllm.evaluation.evaluate import (
        THROUGH_CHANNELS,
        open_model,
        packaged_reader,
        packaged_second_opinion,
        read_rows,
    )
    from finllm.evaluation.evaluate import evaluate as score_file

    for _row in read_rows(task, data):  # before a model is derived or loaded
        pass
    with open_display(as_json=as_json, quiet=quiet) as display:
        bus = EventBus(display)
        opinion = packaged_second_opinion() if second else None
        reader = packaged_reader(settings) if task in THROUGH_CHANNELS else None
        with open_model(settings, bus) as opened:
            found = score_file(task, data, opened.backend, bus, card=opened.card, second=opinion, reader=reader)
        told = file_json(task, found, opened, second=second)
    if as_json:
        print_json(told)
        return
    for name, value in told.items():
        print(f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}")


def file_json(task: TaskName, found: Evaluated, opened: Opened, *, second: bool) -> dict[str, Any]:
    """What a scored file comes to, as `--json` prints it."""
    scores = found.scores
    return {
        "task": task.value, "n": scores.n, "accuracy": scores.accuracy, "macro_f1": scores.macro_f1,
        "weighted_f1": scores.weighted_f1, "abstained": found.abstained, "model": opened.name,
        "precision": opened.backend.offer.precision, "second_opinion": second,
    }  # fmt: skip


def _probes(settings: Settings, *, as_json: bool, quiet: bool) -> None:
    from finllm.cli.display.events import open_display
    from finllm.cli.display.report import table
    from finllm.evaluation.evaluate import open_model, probe_scores

    with open_display(as_json=as_json, quiet=quiet) as display:
        bus = EventBus(display)
        with open_model(settings, bus) as opened:
            found = probe_scores(opened.backend, bus, opened.card)
            name, precision = opened.name, opened.backend.offer.precision
    if as_json:
        probes = {agent: quality.model_dump(mode="json") for agent, quality in found.items()}
        print_json({"model": name, "precision": precision, "probes": probes})
        return
    console = out_console()
    console.print(table(
        ("agent's probes", "items", "right", "lower bound", "by chance"),
        [(agent, str(q.items), f"{q.score:.2f}", f"{q.lower:.2f}", f"{q.chance:.2f}") for agent, q in found.items()],
        right=(1, 2, 3, 4),
    ))  # fmt: skip
    print(f"{name} at {precision}: share of labelled fields that were right")

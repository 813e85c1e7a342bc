"""`finllm deploy`: a new model or adapter beside the one that is served, then served in one step, or taken back."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finllm import running
from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.options import JsonFlag, examples
from finllm.errors import InputError
from finllm.plain_text import clean
from finllm.settings import load_settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from finllm.evaluation.shadow import Compared
    from finllm.models.served import Served, Version
    from finllm.settings import Settings

STEPS = ("promote", "rollback", "status")


def add_to(app: typer.Typer) -> None:
    app.command("deploy", epilog=examples(
        "finllm deploy my-adapter.gguf --shadow 20%", "finllm deploy my-model --shadow 100% --calls 50 --follow 600",
        "finllm deploy promote", "finllm deploy rollback", "finllm deploy status --json",
    ))(deploy)  # fmt: skip


def deploy(
    what: Annotated[
        str, typer.Argument(metavar="MODEL|ADAPTER|promote|rollback|status",
                            help="A registered model, a GGUF model or LoRA adapter, 'auto' or 'none' for the adapter "
                                 "of the model that is served; or a step.")],
    shadow: Annotated[
        str | None, typer.Option("--shadow", metavar="N%", help="Answer copies of this share of the calls on record.")
    ] = None,
    calls: Annotated[int, typer.Option("--calls", min=1, help="Copies at most, of the newest calls.")] = 200,
    follow: Annotated[float, typer.Option("--follow", min=0.0, help="Also copy the calls that come within so many "
                                                                    "seconds.")] = 0.0,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Try a new version on copies of live calls, serve it in one step, or take it back; every step is on record.

    Copies are answered in this process and touch no run. A process keeps the version that it opened: what is under way
    ends on the old one, what begins after the step is on the new one, and no run is answered by both.
    """
    from finllm.guardrails.audit.recorder import open_recorder

    settings = load_settings().settings
    if what in STEPS:
        if shadow is not None:
            raise InputError(f"--shadow goes with a model or an adapter, not with {what!r}", fix="leave it out")
        _step(what, settings, as_json=as_json)
        return
    share = _share(shadow)
    from finllm.evaluation.shadow import stage
    from finllm.models.served import version_of

    version = version_of(what, settings)
    with contextlib.closing(open_recorder(settings)) as ledger:
        found = _shadowed(version, settings, ledger, share, calls, follow)
        stage(settings, version, found, ledger)
    if as_json:
        print_json({"candidate": version.model_dump(mode="json"), "compared": found.to_json()})
    else:
        out_console().print(view(found))
        print(clean(f"candidate: {version.words}; serve it with: finllm deploy promote"))


def _shadowed(
    version: Version, settings: Settings, ledger: Any, share: float, calls: int, follow: float
) -> Compared:  # fmt: skip
    from finllm.evaluation.shadow import Shadow
    from finllm.models.cards import adapter_for
    from finllm.models.registry import default_source
    from finllm.scheduler.backends.llama_cpp import llama_backends
    from finllm.scheduler.engine.process import EngineProcess

    theirs = version.on(settings)
    _adapter, card = adapter_for(default_source(theirs), theirs, theirs.edge_precision)
    with contextlib.closing(EngineProcess()) as process:
        backend = next(one for one in llama_backends(theirs, process) if one.offer.tier == "edge")
        return running.run(Shadow(ledger, backend, card, share).copies(calls, follow=follow))


def _step(what: str, settings: Settings, *, as_json: bool) -> None:
    from finllm.evaluation import shadow
    from finllm.guardrails.audit.recorder import open_recorder

    if what == "status":
        found = shadow.status(settings)
        if as_json:
            print_json(found)
        else:
            print("\n".join(clean(line) for line in _lines(settings)))
        return
    with contextlib.closing(open_recorder(settings)) as ledger:
        done: Served = (shadow.promote if what == "promote" else shadow.rollback)(settings, ledger)
    if as_json:
        print_json(done.model_dump(mode="json"))
    elif done.served is not None:
        print(clean(f"served from now on: {done.served.words}"))


def _lines(settings: Settings) -> list[str]:
    from finllm.models.served import current, read_served

    found = read_served(settings)
    lines = [f"served: {current(settings).words}" + ("" if found.served else ", by the settings alone")]
    lines += [f"before: {one.words}" for one in reversed(found.before)]
    return [*lines, f"candidate: {found.candidate.words}" if found.candidate else "candidate: none"]


def view(found: Compared) -> RenderableType:
    from rich.console import Group

    from finllm.cli.display.report import table, text

    rows = [(one.what, one.unit, f"{one.served:.4g}", f"{one.new:.4g}", f"{one.low:+.4g} to {one.high:+.4g}")
            for one in found.figures]  # fmt: skip
    agreed = f"{found.agreed / found.fields:.1%}" if found.fields else "-"
    told = f"{found.copies} copies, {found.failed} without an answer; {found.agreed} of {found.fields} fields alike"
    return Group(text(f"{told}: {agreed} ({found.low:.1%} to {found.high:.1%})"),
                 table(("", "unit", "served", "new", "new less served, 95 %"), rows, right=(2, 3)))  # fmt: skip


def _share(text: str | None) -> float:
    number = (text or "").strip().removesuffix("%")
    try:
        share = float(number) / 100.0
    except ValueError:
        share = 0.0
    if not 0.0 < share <= 1.0:
        raise InputError(f"--shadow {text!r} is no share" if text else "a new version is tried before it is served",
                         fix="give --shadow with a share above 0 up to 100%, such as 20%")  # fmt: skip
    return share

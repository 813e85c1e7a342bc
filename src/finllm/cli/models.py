"""`finllm models`: the registry of model files, with what is derived from them; list, add, verify, remove, pull."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finllm.cli import models_export
from finllm.cli.display.terminal import LISTED_WIDTH, err_console, out_console, print_json
from finllm.cli.options import JsonFlag, QuietFlag, examples, help_if_alone
from finllm.errors import FinllmError, InputError
from finllm.settings import Settings, load_settings

if TYPE_CHECKING:
    from finllm.models.inspection import Inspection
    from finllm.models.registry import ModelEntry

MIB = 1 << 20
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As 'finllm models list' shows it.")]
LicenceOption = Annotated[
    str | None,
    typer.Option("--licence", metavar="SPDX", help="Such as Apache-2.0.  \\[default: as the file says]"),
]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="The models that runs may use; FINLLM_MODEL names one.", epilog=examples(
        "finllm models list --rungs", "finllm models add mine model.gguf --licence MIT", "finllm models verify",
        "finllm models pull HuggingFaceTB/SmolLM2-360M-Instruct-GGUF"))  # fmt: skip
    group.callback(invoke_without_command=True)(help_if_alone)
    group.command("list", epilog=examples("finllm models list", "finllm models list --rungs --json"))(list_)
    group.command("add", epilog=examples("finllm models add mine model.gguf --licence Apache-2.0"))(add)
    group.command("verify", epilog=examples("finllm models verify", "finllm models verify mine"))(verify)
    group.command("remove", epilog=examples("finllm models remove mine"))(remove)
    group.command("pull", epilog=examples(
        "finllm models pull OWNER/REPOSITORY model.gguf", "finllm models pull mine"))(pull)  # fmt: skip
    models_export.add_to(group)
    app.add_typer(group, name="models")


def list_(
    rungs: Annotated[bool, typer.Option("--rungs", help="The derived files too, each with its tensor mix.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the embedded and the registered models, and whether their files are the registered ones."""
    settings = load_settings().settings
    rows = _rows(settings)
    derived = _rungs(settings) if rungs else []
    if as_json:
        print_json({"models": rows} | ({"rungs": derived} if rungs else {}))
        return
    from finllm.cli.display.report import listing, verdict

    console = out_console(LISTED_WIDTH)
    models = [
        (row["name"], [
            verdict(row["state"]) + (", used" if row["used"] else "") + f", {row['licence']}, {_mib(row['bytes'])} MiB",
            f"context {row['context']}, tokenizer {row['tokenizer']}, sha256 {row['sha256'][:12]}",
            row["url"] or row["path"],
        ]) for row in rows
    ]  # fmt: skip
    files = [
        (f"{row['model']} at {row['precision']}", [
            f"sha256 {row['sha256'][:12]}, adapter {(row['adapter_sha256'] or '-')[:12]}, {_mib(row['bytes'])} MiB",
            ", ".join(f"{count} {kind}" for kind, count in row["tensor_mix"].items()),
        ]) for row in derived
    ]  # fmt: skip
    console.print(listing(models + files), crop=False)


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A GGUF file; it stays where it is.")],
    licence: LicenceOption = None,
    sha256: Annotated[str | None, typer.Option("--sha256", help="Refuse the file if it has another digest.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Register a model file after checking that it is whole, has a chat template, and suits typed decoding."""
    from finllm.models.registry import ModelEntry, add_entry, check_name
    from finllm.models.source import cached_digest, check_gguf

    settings = load_settings().settings
    check_name(name)
    path = file.expanduser().absolute()
    check_gguf(path)
    digest = cached_digest(path, settings)
    if sha256 is not None and digest != sha256.lower():
        raise InputError(f"{str(path)!r} has sha256 {digest}, not {sha256}", fix="fetch the file again")
    found = _inspect(path)
    entry = ModelEntry(name=name, path=path, licence=_licence(licence, found.licence), sha256=digest,
                  bytes=path.stat().st_size, found=found)  # fmt: skip
    add_entry(entry, settings)
    _tell(entry, as_json=as_json)


def pull(
    repository: Annotated[str, typer.Argument(metavar="OWNER/REPOSITORY|NAME",
                                              help="On the hub; or a registered model, to fetch it again.")],
    file: Annotated[str | None, typer.Argument(metavar="FILE", help="\\[default: the only GGUF file]")] = None,
    name: Annotated[str | None, typer.Option("--name", help="What to call it.  \\[default: the file's name]")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit.")] = None,
    sha256: Annotated[str | None, typer.Option("--sha256", help="Refuse the file if it has another digest.")] = None,
    licence: LicenceOption = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Fetch a model from the Hugging Face hub (or from HF_ENDPOINT) and register it.

    A fetch that broke off goes on where it stopped. The only commands that use the network are those named 'pull'.
    """
    from finllm.cli.display.events import open_display
    from finllm.events import Progress
    from finllm.models.hub import fetch, find_file
    from finllm.models.registry import ModelEntry, add_entry, check_name, find_entry
    from finllm.models.source import cached_digest

    settings = load_settings().settings
    known = find_entry(repository, settings) if "/" not in repository else None
    if known is not None:
        if known.origin is None:
            raise InputError(f"model {known.name!r} was added by hand and has no origin", fix="put its file back")
        origin = known.origin
        remote = find_file(origin.repository, origin.file, origin.revision, origin.endpoint)
        sha256 = known.sha256
    else:
        check_name(name) if name else None
        remote = find_file(repository, file, revision)
    with open_display(as_json=as_json, quiet=quiet) as show:
        what = f"pulling {remote.origin.file}"
        path = fetch(
            remote, settings, lambda done, total: show(Progress(what=what, done=done // MIB, total=total // MIB)),
            sha256=sha256.lower() if sha256 else None,
        )  # fmt: skip
    if known is not None:
        _tell(known, as_json=as_json)
        return
    found = _inspect(path)
    stated = remote.licence if remote.licence != "unknown" else found.licence
    entry = ModelEntry(name=name or path.stem, path=path, origin=remote.origin, licence=_licence(licence, stated),
                  sha256=cached_digest(path, settings), bytes=path.stat().st_size, found=found)  # fmt: skip
    add_entry(entry, settings, replace=True)
    if remote.sha256 is None and sha256 is None:
        err_console().print(f"the hub states no sha256 for {remote.origin.file}: nothing vouches for what came")
    _tell(entry, as_json=as_json)


def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="\\[default: all]")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Read every model and derived file whole and compare its digest. Exits with 1 if one is missing or another."""
    from finllm.models.verification import verify_files

    checks = verify_files(names or (), load_settings().settings)
    healthy = all(check.status == "ok" for check in checks)
    if as_json:
        print_json({"healthy": healthy, "files": [check.to_json() for check in checks]})
    else:
        from finllm.cli.display.report import table, verdict

        out_console().print(table(
            ("model", "what", "status", "file", "mend"),
            [(c.model, c.what, verdict(c.status), str(c.path), c.fix or "-") for c in checks]))  # fmt: skip
    if not healthy:
        raise typer.Exit(1)


def remove(name: NameArgument, as_json: JsonFlag = False) -> None:
    """Forget a model and delete what was derived from it; its own file only if it was pulled."""
    from finllm.models.registry import remove_entry

    entry = remove_entry(name, load_settings().settings)
    kept = entry.origin is None
    if as_json:
        print_json({"removed": entry.name, "file": str(entry.path), "file_kept": kept})
    else:
        print(
            f"{entry.name} is removed; its file {entry.path} was {'left alone' if kept else 'pulled, and is deleted'}"
        )


def _inspect(path: Path) -> Inspection:
    from finllm.agents.roles import judgement_fields
    from finllm.models.inspection import inspect_model

    return inspect_model(path, judgement_fields())


def _licence(given: str | None, stated: str) -> str:
    from finllm.models import licence

    return licence.spdx(given) if given is not None else licence.stated(stated)


def _rows(settings: Settings) -> list[dict[str, Any]]:
    from finllm.models.registry import default_source, entry_source, read_entries
    from finllm.models.source import EMBEDDED_LICENCE, EMBEDDED_NAME, embedded_source

    entries = read_entries(settings)
    try:
        used = default_source(settings).name
    except FinllmError:
        used = str(settings.model)
    try:
        source = embedded_source(settings)
        found = _inspect(source.path)
        rows = [{"name": EMBEDDED_NAME, "state": "ok", "path": str(source.path), "url": None, "sha256": source.sha256,
                 "licence": EMBEDDED_LICENCE, "bytes": source.path.stat().st_size, **_said(found)}]  # fmt: skip
    except FinllmError as error:
        rows = []
        err_console().print(f"{EMBEDDED_NAME}: {error}")
    for entry in entries:
        try:
            entry_source(entry, settings)
            state = "ok"
        except FinllmError:
            state = "changed" if entry.path.is_file() else "missing"
        rows.append(_row(entry) | {"state": state})
    return [row | {"used": row["name"] == used} for row in rows]


def _row(entry: ModelEntry) -> dict[str, Any]:
    return {"name": entry.name, "path": str(entry.path), "url": entry.origin.url if entry.origin else None,
            "sha256": entry.sha256, "licence": entry.licence, "bytes": entry.bytes, **_said(entry.found)}  # fmt: skip


def _said(found: Inspection) -> dict[str, Any]:
    return found.model_dump(include={"architecture", "tokenizer", "context", "parameters", "scored_whole",
                                     "chat_template"}, mode="json")  # fmt: skip


def _rungs(settings: Settings) -> list[dict[str, Any]]:
    from finllm.models.ladder import derived_rungs
    from finllm.models.registry import read_entries
    from finllm.models.source import EMBEDDED_NAME, embedded_source

    digests = {EMBEDDED_NAME: embedded_source(settings).sha256}
    digests |= {entry.name: entry.sha256 for entry in read_entries(settings)}
    return [
        {"model": name} | rung.model_dump(mode="json")
        for name, digest in digests.items()
        for rung in derived_rungs(digest, settings)
    ]


def _tell(entry: ModelEntry, *, as_json: bool) -> None:
    if as_json:
        print_json({"model": _row(entry)})
        return
    print(f"{entry.name} is registered: {_mib(entry.bytes)} MiB, {entry.licence}, context {entry.found.context}, "
          f"sha256 {entry.sha256[:12]}; use it with FINLLM_MODEL={entry.name}")  # fmt: skip
    if entry.found.scored_whole:
        print(f"values start alike in its tokenizer, so whole values will be scored, which is slower, for: "
              f"{', '.join(entry.found.scored_whole)}")  # fmt: skip


def _mib(size: int) -> str:
    return f"{size / MIB:.0f}"

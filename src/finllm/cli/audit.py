"""`finllm audit`: verify the tamper-evident record, prove a record, take one run out, witness the log, change keys."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.options import JsonFlag, examples, help_if_alone, write_out
from finllm.errors import InputError
from finllm.files import check_folder
from finllm.plain_text import clean
from finllm.settings import load_settings

if TYPE_CHECKING:
    from finllm.guardrails.audit import LogReader, Verification
    from finllm.guardrails.audit.home import Held
    from finllm.guardrails.audit.rotating import Changed

SHOWN = 10
"""Changes that are named; JSON names all."""
UNPROVEN = 4
"""Exit code of `verify` where nothing is damaged and no witness says that nothing is missing."""

LogOption = Annotated[
    Path | None, typer.Option("--log", metavar="DIR", help="The log, or a copy of it.  \\[default: $FINLLM_HOME/audit]")
]
WitnessOption = Annotated[
    Path | None,
    typer.Option("--witness", "-w", metavar="PATH", help="A witness's folder, or a checkpoint kept elsewhere."),
]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        help="The tamper-evident record of all runs. What it proves and what not: docs/audit.md.",
        epilog=examples("finllm audit witness /mnt/usb/witness", "finllm audit verify --witness /mnt/usb/witness",
                        "finllm audit export 20220630-081500-hormuz-closed-for-a-month-1f3a --out bundle"),
    )  # fmt: skip
    group.callback(invoke_without_command=True)(help_if_alone)
    group.command(epilog=examples("finllm audit verify -w /mnt/usb/witness", "finllm audit verify --json"))(verify)
    group.command(epilog=examples("finllm audit prove 17", "finllm audit prove 17 --json"))(prove)
    group.command(epilog=examples(
        "finllm audit export 20220630-081500-hormuz-closed-for-a-month-1f3a --out bundle --witness /mnt/usb/witness",
    ))(export)  # fmt: skip
    group.command(epilog=examples("finllm audit witness /mnt/usb/witness"))(witness)
    group.command(epilog=examples("finllm audit verifier", "finllm audit verifier --out verify.py"))(verifier)
    group.command(epilog=examples("finllm audit rotate", "finllm audit rotate --to /mnt/keys/audit-2027.key"))(rotate)
    group.command(epilog=examples("finllm audit retire"))(retire)
    app.add_typer(group, name="audit")


def verify(
    log: LogOption = None,
    witness: WitnessOption = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="VKEY", help="The log's verifier key, as known from elsewhere.")
    ] = None,
    files: Annotated[
        list[Path] | None, typer.Option("--file", "-f", metavar="FILE", help="A copy of a report file that was kept "
                                        "elsewhere: is it as a run on record wrote it? Repeatable.")] = None,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Check every record, blob and signature, then every row of the ledger, text and report file against the log.

    Names what was changed. Exits with 1 for damage, with 4 where all that is there is intact and no witness says that
    none is missing or was written anew (whoever holds the signing key could have), and with 0 where a witness does.
    With --log the log alone is checked, and the files given.
    """
    from finllm.guardrails.audit import read_witnessed, verify_log
    from finllm.guardrails.audit.home import NOT_HELD, verify_home
    from finllm.guardrails.audit.note import VerifierKey
    from finllm.memory.texts import Texts

    settings = load_settings().settings
    folder = log or settings.audit_dir
    try:
        vkey = None if key is None else VerifierKey.parse(key)
    except ValueError as error:
        raise InputError(f"--key {key!r}: {error}", fix="give the line of a log.vkey file") from error
    verdict = verify_log(folder, None if witness is None else read_witnessed(witness), vkey)
    kept = None if log else (settings.ledger_path, Texts(settings.texts_dir))
    ledger, texts = kept or (None, None)
    home = [] if verdict.damage else verify_home(folder, ledger, files or (), texts)
    changed = any(one.problems for one in home)
    status = "damaged" if changed else verdict.status
    if as_json:
        print_json({
            "status": status, "ok": status != "damaged", "complete": verdict.complete and not changed,
            "log": str(folder), "origin": verdict.origin,
            "size": verdict.size, "signed": verdict.signed, "witnessed": verdict.witnessed,
            "damage": [vars(one) for one in verdict.damage], "notes": list(verdict.notes),
            "held": [asdict(one) for one in home], "not_held": [] if log else list(NOT_HELD),
        })  # fmt: skip
    else:
        _show(verdict, home, not_held=() if log else NOT_HELD)
    if code := {"damaged": 1, "unproven": UNPROVEN, "intact": 0}[status]:
        raise typer.Exit(code)


def verifier(
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the script there.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Print the sha256 of the script that verifies bundles, which travels with what it checks; or write the script."""
    from hashlib import sha256

    from finllm.files import write_file
    from finllm.guardrails.audit.bundle import verifier as script

    data = script()
    digest = sha256(data).hexdigest()
    if out is not None:
        write_file(out, data, fix="name a file in a folder that you may write")
    if as_json:
        print_json({"sha256": digest, "out": None if out is None else str(out)})
    else:
        print(f"{digest}  verify.py")


def prove(
    index: Annotated[int, typer.Argument(metavar="INDEX", min=0, help="The record's number, from 0.")],
    log: LogOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Prove that a record is in the log: its hash's way up to the signed checkpoint (c2sp.org/tlog-proof)."""
    from finllm.guardrails.audit.bundle import proof_text

    reader = open_log(log)
    if index >= reader.checkpoint.size:
        raise InputError(f"no record {index}: the signed log has {reader.checkpoint.size}", fix="give a smaller INDEX")
    text = proof_text(reader, index)
    if not as_json:
        print(text, end="")
        return
    print_json({
        "index": index, "size": reader.checkpoint.size, "leaf": reader.tree.leaf(index).hex(),
        "record": json.loads(reader.record(index)), "proof": [_encoded(hash) for hash in reader.inclusion(index)],
        "root": _encoded(reader.checkpoint.root), "checkpoint": str(reader.note), "key": str(reader.vkey),
        "key_changes": list(reader.keys.places),
    })  # fmt: skip


def export(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The id that 'finllm runs list' shows.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="A new folder for the bundle.")],
    log: LogOption = None,
    witness: WitnessOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Take one run out as a bundle: records, proofs, checkpoint, blobs, source texts, report files, and a verifier.

    The script needs Python and the package 'cryptography', and nothing else.
    """
    from finllm.guardrails.audit.bundle import bundle_of
    from finllm.memory.texts import Texts

    check_folder(out, "--out")
    if out.exists() and any(out.iterdir()):
        raise InputError(f"--out {str(out)!r} holds files", fix="name a new folder")
    files = bundle_of(open_log(log), run_id, witness, Texts(load_settings().settings.texts_dir))
    write_out(out, files)
    records = files["records.jsonl"].count(b"\n")
    blobs, texts, report = (sum(name.startswith(f"{one}/") for name in files) for one in ("blobs", "texts", "report"))
    if as_json:
        print_json({"run": run_id, "out": str(out), "records": records, "blobs": blobs, "texts": texts, "files": report,
                    "witnessed": witness is not None})  # fmt: skip
    else:
        print(
            clean(
                f"{records} records, {blobs} blobs, {texts} texts and {report} report files are in {str(out)!r}; "
                f"verify: python {out / 'verify.py'}; the script's sha256 is what 'finllm audit verifier' prints"
            )
        )


def witness(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The witness's folder: elsewhere, out of reach of whoever holds the "
                                                 "log's key.")],
    log: LogOption = None,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Let a witness see the log: it cosigns the checkpoint and keeps it, unless that contradicts its last."""
    from finllm.guardrails.audit import witness_log

    reader = open_log(log)
    saw = witness_log(reader, folder)
    if as_json:
        print_json({"witness": str(folder), "origin": saw.checkpoint.origin, "size": saw.checkpoint.size,
                    "root": _encoded(saw.checkpoint.root), "at": saw.at, "key": str(reader.vkey)})  # fmt: skip
    else:
        print(clean(f"the witness in {str(folder)!r} has seen {saw.checkpoint.size} records"))


def rotate(
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="File of the new key, made where there is none; holds both then.  "
                     "\\[default: the file that the key is read from]"),
    ] = None,
    overlap: Annotated[
        bool, typer.Option(help="Whether the key before signs too, until 'finllm audit retire'; without, as for a "
                                "stolen key, who knows only that one must learn the new one at once.")] = True,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Let a new key sign the log from here on, by a record that the key before has signed.

    A new key in front of the one in use, in the file or in FINLLM_AUDIT_KEY, is taken; else one is made and put there.
    Who knows the key before can follow: let each witness see the log, and give the new verifier key to whoever checks.
    """
    from finllm.guardrails.audit.rotating import rotate as change

    _show_keys(change(load_settings().settings, to, overlap=overlap), as_json)


def retire(as_json: JsonFlag = False) -> None:
    """End the overlap that 'rotate' began: the key before signs no more, and leaves the file of keys."""
    from finllm.guardrails.audit.rotating import retire as end

    _show_keys(end(load_settings().settings), as_json)


def _show_keys(changed: Changed, as_json: bool) -> None:
    signs, too = changed.signers.signs, changed.signers.too
    if as_json:
        print_json({"record": changed.record, "signs": str(signs), "signs_too": None if too is None else str(too),
                    "file": None if changed.file is None else str(changed.file)})  # fmt: skip
        return
    print(f"signs: {signs}")
    if too is not None:
        print(f"signs too, until 'finllm audit retire': {too}")
    if changed.record is not None:
        print(f"record {changed.record} says so; let each witness see the log now: 'finllm audit witness DIR'")
    if changed.file is not None:
        print(clean(f"the keys are in {str(changed.file)!r}"))
    if changed.elsewhere:
        print("set FINLLM_AUDIT_KEY_FILE to it, and unset FINLLM_AUDIT_KEY: nothing else signs the log now")


def open_log(log: Path | None) -> LogReader:
    """The log to read; records of the home's own that no checkpoint covers, as after a kill, are signed first."""
    from finllm.guardrails.audit import AuditLog, LogReader
    from finllm.guardrails.audit.keys import keyring

    settings = load_settings().settings
    reader = LogReader(log or settings.audit_dir)
    if log is None and reader.size > reader.checkpoint.size:
        AuditLog(settings.audit_dir, keyring(settings)).close()
        reader = LogReader(settings.audit_dir)
    return reader


def _show(verdict: Verification, home: Sequence[Held], not_held: Sequence[str]) -> None:
    from rich.console import Group

    from finllm.cli.display.report import table, text

    if verdict.first is not None:
        head = text(f"DAMAGED at record {verdict.first.index}: {verdict.first.kind}", "bold red")
    elif changed := [one.file for one in home if one.problems]:
        head = text(f"DAMAGED: the log is whole, and {', '.join(changed)} is not what it recorded", "bold red")
    elif verdict.witnessed is None:
        head = text("completeness unproven: no record is damaged, but no witness says that none is missing or was "
                    "written anew; give --witness", "yellow")  # fmt: skip
    else:
        head = text(f"ok: {verdict.size} records, the first {verdict.witnessed} of them seen by a witness", "green")
    rows = [("log", verdict.origin or "-"), ("records", str(verdict.size)), ("signed", str(verdict.signed)),
            ("witnessed", "-" if verdict.witnessed is None else str(verdict.witnessed))]  # fmt: skip
    parts = [head, table(("", ""), rows)]
    if verdict.damage:
        parts.append(table(("record", "kind", "what"), [(str(d.index), d.kind, d.what) for d in verdict.damage]))
        parts.append(text("the home was not held against a damaged log", "dim"))
    for one in home:
        parts.append(text(f"held against the log: {one.file}, {one.compared} of its rows or files"))
        parts += [text(f"  CHANGED: {what}", "red") for what in one.problems[:SHOWN]]
        if more := len(one.problems) - SHOWN:
            parts += [text(f"  and {more} more: --json names them", "red")] if more > 0 else []
        parts += [text(f"  note: {note}", "dim") for note in one.notes]
    if home and not_held:
        parts.append(text(f"not held: {', '.join(not_held)} (docs/audit.md says why)", "dim"))
    parts += [text(f"note: {note}", "dim") for note in verdict.notes]
    out_console().print(Group(*parts))


def _encoded(hash: bytes) -> str:
    return base64.b64encode(hash).decode()

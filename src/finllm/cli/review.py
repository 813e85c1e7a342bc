"""`finllm review`: what waits for a reader, reading it, and signing it, sending it back or leaving it to another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finllm.cli.display.terminal import print_json
from finllm.cli.identity import AsOption, BecauseOption, Phrases, at_the_desk, who
from finllm.cli.options import JsonFlag, examples, help_if_alone, write_out
from finllm.errors import InputError
from finllm.files import check_folder
from finllm.plain_text import clean, clean_lines

if TYPE_CHECKING:
    from finllm.memory.review_rows import Look
    from finllm.memory.reviews import Shown

ItemArgument = Annotated[str, typer.Argument(metavar="ITEM", help="Such as r-1; 'finllm review list' shows them.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Versions put to review: read them, sign them or send them back. A session's verb `review` puts them "
             "there.",
        epilog=examples("finllm review list", "finllm review show r-1", 'finllm review sign r-1 --because "…"',
                        'finllm review send-back r-1 --about limit --because "…"'),
    )  # fmt: skip
    group.callback(invoke_without_command=True)(help_if_alone)
    group.command("list", epilog=examples("finllm review list", "finllm review list --all --json"))(list_items)
    group.command(epilog=examples("finllm review show r-1"))(show)
    group.command(epilog=examples("finllm review claim r-1"))(claim)
    group.command(epilog=examples("finllm review release r-1"))(release)
    group.command(epilog=examples('finllm review sign r-1 --because "each figure opens its row"'))(sign)
    group.command(epilog=examples('finllm review send-back r-1 --about limit --because "the energy limit is old"'))(
        send_back
    )
    group.command(epilog=examples('finllm review escalate r-1 --because "beyond my limit"'))(escalate)
    group.command(epilog=examples('finllm review withdraw r-1 --because "the wrong book"'))(withdraw)
    group.command(epilog=examples("finllm review export r-1 --out bundle"))(export)
    group.command(epilog=examples("finllm review plant r-1 --fault sign"))(plant)
    group.command(epilog=examples("finllm review audits", "finllm review audits --json"))(audits)
    app.add_typer(group, name="review")


def list_items(
    all_: Annotated[bool, typer.Option("--all", help="Those that are over too.")] = False,
    named: AsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List what is open: what comes back to you and what you have first, and why you may not take the others."""
    with at_the_desk() as desk:
        viewer = who(desk.users, named, Phrases())
        found = [*desk.queue(viewer), *(desk.queue(viewer, ended=True) if all_ else ())]
    if as_json:
        print_json({"reviews": [_json(one) for one in found]})
        return
    print("\n".join(line for one in found for line in _listed(one)) or "None.")


def show(item: ItemArgument, named: AsOption = None, as_json: JsonFlag = False) -> None:
    """Show an item, what it binds and what was said of it. That you looked is on record."""
    with at_the_desk() as desk:
        viewer = who(desk.users, named, Phrases())
        desk.item(item, viewer)
        desk.looked(viewer, item)
        shown, looks = desk.item(item, viewer), desk.looks(item, viewer)
        before = shown.item.row.follows
        run = None if before is None else desk.record.get(before).row.run
    if as_json:
        print_json({**_json(shown), "looks": [one.model_dump() for one in looks]})
        return
    print("\n".join(clean_lines(line) for line in _told(shown, looks, run)))


def claim(item: ItemArgument, named: AsOption = None, as_json: JsonFlag = False) -> None:
    """Take an item, so that nobody else works on it; claimed again it is renewed. It runs out by itself."""
    with at_the_desk() as desk:
        _done(desk.claim(item, who(desk.users, named, Phrases())), as_json)


def release(item: ItemArgument, named: AsOption = None, as_json: JsonFlag = False) -> None:
    """Give a claimed item back unread."""
    with at_the_desk() as desk:
        _done(desk.release(item, who(desk.users, named, Phrases())), as_json)


def sign(item: ItemArgument, because: BecauseOption, named: AsOption = None, as_json: JsonFlag = False) -> None:
    """Sign the bytes of an item. Your pass phrase is asked for, or read from a line of stdin."""
    phrases = Phrases()
    with at_the_desk() as desk:
        viewer = who(desk.users, named, phrases)
        desk.may(item, viewer, "signed", because)
        _done(desk.sign(item, viewer, phrases.of(viewer.name), because), as_json)


def send_back(
    item: ItemArgument,
    because: BecauseOption,
    about: Annotated[
        str, typer.Option("--about", metavar="FAULT", help="evidence, reading, override, limit, source, sign, "
                                                           "injection, number or other.")],
    named: AsOption = None,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Send an item back to who put it: another version of the session comes back to you."""
    with at_the_desk() as desk:
        viewer = who(desk.users, named, Phrases())
        _done(desk.send_back(item, viewer, about, because), as_json)  # type: ignore[arg-type]


def escalate(item: ItemArgument, because: BecauseOption, named: AsOption = None, as_json: JsonFlag = False) -> None:
    """Leave an item to an auditor or admin, one of whom has to sign it."""
    with at_the_desk() as desk:
        _done(desk.escalate(item, who(desk.users, named, Phrases()), because), as_json)


def withdraw(item: ItemArgument, because: BecauseOption, named: AsOption = None, as_json: JsonFlag = False) -> None:
    """Take back what you put to review yourself."""
    with at_the_desk() as desk:
        _done(desk.withdraw(item, who(desk.users, named, Phrases()), because), as_json)


def export(
    item: ItemArgument,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="A new folder for the two bundles.")],
    named: AsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Take an item out as two bundles that verify offline: the run that was reviewed, and what was said of it."""
    from finllm.cli.audit import open_log
    from finllm.guardrails.audit.bundle import bundle_of
    from finllm.memory.texts import Texts
    from finllm.settings import load_settings

    check_folder(out, "--out")
    if out.exists() and any(out.iterdir()):
        raise InputError(f"--out {str(out)!r} holds files", fix="name a new folder")
    with at_the_desk() as desk:
        viewer = who(desk.users, named, Phrases())
        shown = desk.item(item, viewer)
        if shown.blind:
            raise InputError(f"{shown.id} is a blind audit that is open", fix="export it when it is over")
        desk.looked(viewer, item)
    reader = open_log(None)
    for name, run in (("run", shown.item.row.run), ("review", shown.id)):
        write_out(out / name, bundle_of(reader, run, texts=Texts(load_settings().settings.texts_dir)))
    if as_json:
        print_json({"item": shown.id, "run": shown.item.row.run, "out": str(out)})
    else:
        print(clean(f"{shown.id} and its run are in {str(out)!r}; verify: python {out / 'run' / 'verify.py'}, "
                    f"python {out / 'review' / 'verify.py'}"))  # fmt: skip


def plant(
    item: ItemArgument,
    fault: Annotated[
        str, typer.Option("--fault", metavar="FAULT", help="sign, source, injection or number: what is wrong in it.")
    ],
    named: AsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Plant an exercise: a copy of an item's run with a known fault, as a blind audit for who did not see the item."""
    from finllm.review.exercises import plant as planting

    with at_the_desk() as desk:
        by = who(desk.users, named, Phrases())
        row = planting(item, fault, by, desk)  # type: ignore[arg-type]
    if as_json:
        print_json({"item": row.id, "run": row.run})
    else:
        print(clean(f"{row.id} waits as a blind audit; what is wrong in it is sealed until its verdict"))


def audits(named: AsOption = None, as_json: JsonFlag = False) -> None:
    """Show what blind audits found: agreement with its interval, planted faults found, by person, fault and month."""
    from finllm.review.audits import audits_of, told

    with at_the_desk() as desk:
        who(desk.users, named, Phrases())
        found = audits_of(desk.record)
    if as_json:
        print_json(found.to_json())
    else:
        print("\n".join(map(clean, told(found))))


def _json(shown: Shown) -> dict[str, Any]:
    row = shown.item.row
    return {
        "id": shown.id, "state": shown.state, "blind": shown.blind, "why_not": shown.why_not,
        "claimed_by": shown.claimed_by, "signatures": len(shown.item.signatures),
        **row.model_dump(mode="json", exclude={"number", "minutes"}),
        "events": [one.model_dump(mode="json", exclude_defaults=True) for one in shown.item.events],
    }  # fmt: skip


def _listed(shown: Shown) -> Iterator[str]:
    row = shown.item.row
    what = "blind audit" if shown.blind else f"put by {row.who}"
    yield clean(f"{shown.id}  {shown.state}  {row.title}  {what}, {row.why}")
    if shown.why_not is not None and shown.item.ended is None:
        yield clean(f"  you cannot take it: {shown.why_not}")


def _told(shown: Shown, looks: tuple[Look, ...], before: str | None) -> Iterator[str]:
    """An item, what has to be known first at the top."""
    row = shown.item.row
    signed = "" if shown.blind else f", {len(shown.item.signatures)} of {row.needs} signatures"
    yield f"{shown.id}: {row.title}"
    yield f"{shown.state}{signed}"
    if shown.why_not is not None and shown.item.ended is None:
        yield f"you cannot review it: {shown.why_not}"
    yield from (f"needs {row.needs}: {one}" for one in row.grave)
    yield f"put by {row.who} at {row.at}: {row.why}"
    yield f"version {row.version} of session {row.session}, run {row.run}"
    yield f"report sha256 {row.report_sha256}, rule book {row.rule_book or '-'}, log size {row.log_size}"
    yield f"read it: finllm trace {row.run}"
    if before is not None and not shown.blind:
        yield f"what changed since r-{row.follows}: finllm diff {before} {row.run}"
    for one in shown.item.events:
        about = f" ({one.about})" if one.about else ""
        yield f"{one.at}  {one.what} by {one.by}{about}{f': {one.reason}' if one.reason else ''}"
        if one.statement:
            yield f"  «{one.statement}»"
    yield from (f"{one.at}  looked: {one.by}" for one in looks)


def _done(shown: Shown, as_json: bool) -> None:
    if as_json:
        print_json(_json(shown))
        return
    row, claim = shown.item.row, shown.item.claim
    until = f" until {claim.until}" if claim is not None and shown.claimed_by else ""
    signed = "" if shown.blind else f", {len(shown.item.signatures)} of {row.needs} signatures"
    print(clean(f"{shown.id}: {shown.state}{until}{signed}"))

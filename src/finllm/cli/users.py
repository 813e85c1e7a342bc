"""`finllm users`: who may review, in which role; pass phrases are asked for and never stand on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from finllm.cli.display.terminal import print_json
from finllm.cli.identity import AsOption, Phrases, at_the_desk, who
from finllm.cli.options import JsonFlag, examples, help_if_alone
from finllm.errors import InputError
from finllm.plain_text import clean
from finllm.processes import login
from finllm.settings import load_settings

if TYPE_CHECKING:
    from finllm.memory.users import User, Users

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Small letters, digits, '.', '_' and '-'.")]
ROLE_HELP = "analyst (asks), risk (sessions), reviewer, auditor (also what is escalated), or admin (also users)."


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Who may review, in which role. Nobody is there until somebody is added.",
        epilog=examples("finllm users add boss --role admin", "finllm users add rev1 --role reviewer --login r.jones",
                        "finllm users list", "finllm users role rev1 auditor"),
    )  # fmt: skip
    group.callback(invoke_without_command=True)(help_if_alone)
    group.command(epilog=examples("finllm users add rev1 --role reviewer"))(add)
    group.command("list")(list_users)
    group.command(epilog=examples("finllm users disable rev1", "finllm users disable rev1 --again"))(disable)
    group.command(epilog=examples("finllm users role rev1 auditor"))(role)
    group.command(epilog=examples("finllm users phrase rev1"))(phrase)
    group.command(epilog=examples("finllm users bind rev1 --subject 00u7x2", "finllm users bind rev1 --none"))(bind)
    app.add_typer(group, name="users")


def add(
    name: NameArgument,
    role: Annotated[str, typer.Option("--role", metavar="ROLE", help=ROLE_HELP)],
    system: Annotated[
        str | None, typer.Option("--login", metavar="LOGIN", help="Their login on this machine.  \\[default: NAME]")
    ] = None,
    named: AsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Add a user. The pass phrase is asked for twice, or read from two lines of stdin.

    As long as there is no admin, whoever has the home adds users; then only an admin does.
    """
    phrases = Phrases()
    with at_the_desk() as desk:
        by = _by(desk.users, named, phrases)
        _show(desk.users.add(name, role, phrases.new(name), by=by, login=system), as_json)  # type: ignore[arg-type]


def list_users(as_json: JsonFlag = False) -> None:
    """List the users: name, role, login, and whether they are disabled."""
    from finllm.cli.history import reading
    from finllm.memory.secret_file import SecretFile
    from finllm.memory.users import Users

    settings = load_settings().settings
    with reading(settings) as ledger:
        found = Users(ledger, SecretFile(settings.users_path)).list() if ledger else ()
    if as_json:
        print_json({"users": [_json(one) for one in found]})
        return
    print("\n".join(_told(one) for one in found) or "None.")


def disable(
    name: NameArgument,
    again: Annotated[bool, typer.Option("--again", help="Let them in again.")] = False,
    named: AsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Let a user in no more, at once and on every device."""
    phrases = Phrases()
    with at_the_desk() as desk:
        _show(desk.users.disable(name, by=_by(desk.users, named, phrases), disabled=not again), as_json)


def role(
    name: NameArgument,
    role: Annotated[str, typer.Argument(metavar="ROLE", help=ROLE_HELP)],
    named: AsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Give a user another role, which ends their sign-ins."""
    phrases = Phrases()
    with at_the_desk() as desk:
        _show(desk.users.role(name, role, by=_by(desk.users, named, phrases)), as_json)  # type: ignore[arg-type]


def phrase(name: NameArgument, named: AsOption = None, as_json: JsonFlag = False) -> None:
    """Give a user another pass phrase: one's own with the old one, another's as an admin. It ends their sign-ins."""
    phrases = Phrases()
    with at_the_desk() as desk:
        by = name if named in (None, name) and not _is_admin(desk.users) else _by(desk.users, named, phrases)
        old = phrases.of(name) if by == name else None
        _show(desk.users.change_phrase(name, phrases.new(name), by=by, old=old), as_json)


def bind(
    name: NameArgument,
    subject: Annotated[
        str, typer.Option("--subject", metavar="SUB", help="The 'sub' that the provider knows them by.")] = "",
    issuer: Annotated[
        str | None, typer.Option("--issuer", metavar="URL", help="The provider.  \\[default: oidc_issuer]")] = None,
    none: Annotated[bool, typer.Option("--none", help="Bind them to nobody there.")] = False,
    named: AsOption = None,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Bind a user to who they are at your OpenID provider, which may then sign them in. It ends their sign-ins.

    Nobody is made a user by signing in there. Who tries unbound is shown their subject, for an admin to bind.
    """
    if none == bool(subject):
        raise InputError(
            "it takes either --subject or --none", fix="give the subject that the sign-in page showed them"
        )
    at = "" if none else issuer or load_settings().settings.oidc_issuer
    if at is None:
        raise InputError("which provider is that a subject of?", fix="set FINLLM_OIDC_ISSUER, or give --issuer URL")
    phrases = Phrases()
    with at_the_desk() as desk:
        _show(desk.users.bind(name, at, subject, by=_by(desk.users, named, phrases)), as_json)


def _is_admin(users: Users) -> bool:
    return any(one.login == login() and one.role == "admin" for one in users.list())


def _by(users: Users, named: str | None, phrases: Phrases) -> str:
    """Who changes users: as long as there is no admin, whoever is at the keyboard."""
    if named is None and not any(one.role == "admin" and not one.disabled for one in users.list()):
        return login()
    return who(users, named, phrases).name


def _json(user: User) -> dict[str, object]:
    return user.model_dump(mode="json", include={"name", "role", "login", "disabled", "issuer", "subject"})


def _told(user: User) -> str:
    bound = f"  subject {user.subject} of {user.issuer}" if user.subject else ""
    return clean(f"{user.name}  {user.role}  login {user.login}{bound}{'  disabled' if user.disabled else ''}")


def _show(user: User, as_json: bool) -> None:
    if as_json:
        print_json(_json(user))
    else:
        print(_told(user))

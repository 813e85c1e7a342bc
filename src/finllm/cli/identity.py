"""Who is at the command line: the user whose login the operating system gives, or one named with their pass phrase."""

from __future__ import annotations

import contextlib
import getpass
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from finllm.errors import InputError
from finllm.processes import login
from finllm.settings import load_settings

if TYPE_CHECKING:
    from finllm.memory.reviews import Reviews
    from finllm.memory.users import User, Users

AsOption = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="The user you are; their pass phrase is asked for.  "
                                                          "\\[default: the user of your login]")
]  # fmt: skip
BecauseOption = Annotated[str, typer.Option("--because", "-b", metavar="TEXT", help="Why; it stays on record.")]


class Phrases:
    """The pass phrases that a command asks for: typed unseen at a terminal, else a line of stdin each."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of(self, name: str) -> str:
        """The pass phrase of a user, asked for once."""
        if name not in self._known:
            self._known[name] = _asked(f"pass phrase of {name}: ")
        return self._known[name]

    def new(self, name: str) -> str:
        """A new one, asked for twice. Errors: InputError where the two differ."""
        first = _asked(f"new pass phrase of {name}: ")
        if _asked("the same again: ") != first:
            raise InputError("the two pass phrases differ", fix="run the command again, and type the same twice")
        return first


def who(users: Users, named: str | None, phrases: Phrases) -> User:
    """Who acts. Errors: AccessRefused for a login that is no user's, and for a wrong pass phrase."""
    return users.of_login(login()) if named is None else users.verify(named, phrases.of(named))


@contextlib.contextmanager
def at_the_desk() -> Iterator[Reviews]:
    """The reviews and users of the home, to write. Errors: RecordError."""
    from finllm.guardrails.audit.recorder import open_recorder
    from finllm.memory.reviews import reviews_of

    settings = load_settings().settings
    with contextlib.closing(open_recorder(settings, lambda line: print(line, file=sys.stderr))) as ledger:
        yield reviews_of(ledger, settings)


def may_be_called(named: str | None) -> str | None:
    """The name that somebody has in a session: the user of their login; another user's takes the pass phrase.

    A name that is no user's is taken from a login that is none either: what is made so cannot be put to review where
    there are users. Errors: InputError; AccessRefused.
    """
    from finllm.guardrails.audit.reading import open_reading
    from finllm.memory.secret_file import SecretFile
    from finllm.memory.users import Users

    settings = load_settings().settings
    if not settings.ledger_path.exists():
        return named
    with open_reading(settings) as ledger:
        users = Users(ledger, SecretFile(settings.users_path), phrases=not settings.oidc_only)
        own = next((one.name for one in users.list() if one.login == login()), None)
        if named is None or named in (own, login()):
            return own or named
        if users.find(named) is not None:
            return users.verify(named, Phrases().of(named)).name
    if own is not None:
        raise InputError(f"--as {named!r}: your login {login()!r} is that of {own!r}", fix="leave --as out")
    return named


def _asked(prompt: str) -> str:
    if sys.stdin.isatty():
        return getpass.getpass(prompt)
    line = sys.stdin.readline()
    if not line:
        raise InputError("stdin ended before a pass phrase", fix="give one a line, each new one twice")
    return line.rstrip("\r\n")

"""The tree of a session's versions, folded from its rows on record; nothing else holds its state."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from finllm.errors import InputError, RecordError
from finllm.memory.sessions import AskedRow, MovedRow, NamedRow, OpenedRow, Row, VersionRow

if TYPE_CHECKING:
    from finllm.desk.request import RunRequest


def moment() -> str:
    """Now, as rows of a session say it."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Version:
    """A version of the scenario on the book: what made it of its parent, who and why, and the run on record."""

    number: int
    parent: int | None
    line: str
    who: str
    at: str
    why: str | None
    run: str
    asked: dict[str, Any]

    @cached_property
    def request(self) -> RunRequest:
        from finllm.desk.request import RunRequest

        return RunRequest.model_validate(self.asked)

    @property
    def id(self) -> str:
        return f"v{self.number}"


@dataclass
class Tree:
    """All versions by number, the one in hand, what `redo` would bring back, and what was asked on the way."""

    opened: OpenedRow
    versions: dict[int, Version] = field(default_factory=dict[int, Version])
    names: dict[int, str] = field(default_factory=dict[int, str])
    current: int = 1
    undone: list[int] = field(default_factory=list[int])
    asked: list[AskedRow] = field(default_factory=list[AskedRow])
    rows: int = 0

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Tree:
        """The tree that the rows tell. Errors: RecordError for rows that do not begin with the opening."""
        tree: Tree | None = None
        for row in rows:
            if tree is None:
                if not isinstance(row, OpenedRow):
                    raise RecordError("a session's record does not begin with its opening", fix="start a new session")
                tree = cls(row)
            tree.take(row)
        if tree is None:
            raise RecordError("there is no such session on record", fix="'finllm session list' shows those there are")
        return tree

    def take(self, row: Row) -> None:
        """Let one more row change the tree."""
        self.rows += 1
        match row:
            case OpenedRow():
                self.versions[1] = Version(1, None, row.line, row.who, row.at, None, row.run, row.request)
            case VersionRow():
                self.versions[row.number] = Version(row.number, row.parent, row.line, row.who, row.at, row.why, row.run,
                                                    row.request)  # fmt: skip
                self.current, self.undone = row.number, []
            case MovedRow(verb="undo"):
                self.undone.append(self.current)
                self.current = row.to
            case MovedRow(verb="redo"):
                self.undone.pop()
                self.current = row.to
            case MovedRow():
                self.current, self.undone = row.to, []
            case NamedRow():
                self.names[row.version] = row.text
            case AskedRow():
                self.asked.append(row)

    @property
    def version(self) -> Version:
        return self.versions[self.current]

    @property
    def next_number(self) -> int:
        return max(self.versions) + 1

    def find(self, text: str) -> Version:
        """A version by `v3`, `3` or its name. Errors: InputError, with the nearest there are."""
        number = text.strip().removeprefix("v")
        if number.isdigit() and int(number) in self.versions:
            return self.versions[int(number)]
        named = [at for at, name in self.names.items() if name.casefold() == text.strip().casefold()]
        if named:
            return self.versions[named[-1]]
        known = ", ".join([*(one.id for one in self.versions.values()), *map(repr, self.names.values())])
        raise InputError(f"no version {text.strip()!r}", fix=f"use one of {known}")

    def undo_to(self) -> Version:
        parent = self.version.parent
        if parent is None:
            raise InputError(f"{self.version.id} is the first version: there is nothing to undo",
                             fix="edit it, or 'goto' another version")  # fmt: skip
        return self.versions[parent]

    def redo_to(self) -> Version:
        if not self.undone:
            raise InputError("nothing was undone", fix="'goto V' goes to any version; 'versions' lists them")
        return self.versions[self.undone[-1]]

    def shape(self) -> dict[str, Any]:
        """What the tree is, as JSON: to compare it with that of the same record read again."""
        return {
            "current": self.current, "undone": list(self.undone), "names": dict(self.names),
            "versions": {at: (one.parent, one.line, one.why, one.who, one.run) for at, one in self.versions.items()},
        }  # fmt: skip

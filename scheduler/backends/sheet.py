"""A sheet: a JSON object with gaps. From a question it makes the schema that a server is to keep, and reads the answer.

Where the other tiers force the text before a choice and score its values behind it, a chat server is given that text as
the fixed part of an object, and the choice as its gap.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

_LEFT, _RIGHT = "\u27e6", "\u27e7"


@dataclass(frozen=True)
class Sheet:
    """`skeleton`: what stands in the object, with a mark in each gap. `gaps`: by mark the values; () is any text."""

    skeleton: Any
    gaps: Mapping[str, tuple[str, ...]]

    @property
    def schema(self) -> dict[str, Any]:
        """JSON Schema of the filled sheet."""
        return self._schema(self.skeleton)

    def read(self, text: str) -> dict[str, str]:
        """The gaps' texts, by mark. Errors: ValueError for anything but the filled sheet, saying what is wrong."""
        try:
            found = json.loads(text)
        except ValueError as error:
            raise ValueError(f"it is no JSON: {error}") from error
        told: dict[str, str] = {}
        self._read(self.skeleton, found, "the answer", told)
        return told

    def _schema(self, part: Any) -> dict[str, Any]:
        if isinstance(part, dict):
            known = cast(dict[str, Any], part)
            return {"type": "object", "properties": {name: self._schema(one) for name, one in known.items()},
                    "required": list(known), "additionalProperties": False}  # fmt: skip
        if isinstance(part, list) and len(part) == 1 and part[0] in self.gaps:  # pyright: ignore[reportUnknownArgumentType]
            return {"type": "array", "items": self._schema(part[0]), "minItems": 1, "maxItems": 1}
        if isinstance(part, str) and part in self.gaps:
            values = self.gaps[part]
            return {"type": "string", "enum": list(values)} if values else {"type": "string"}
        return {"const": part}

    def _read(self, part: Any, found: Any, where: str, told: dict[str, str]) -> None:
        if isinstance(part, dict):
            known = cast(dict[str, Any], part)
            if not isinstance(found, dict) or set(found) != set(known):  # pyright: ignore[reportUnknownArgumentType]
                raise ValueError(f"{where} is no object of {', '.join(map(repr, known))} alone")
            for name, one in known.items():
                self._read(one, found[name], repr(name), told)
        elif isinstance(part, list):
            rows = cast(list[Any], part)
            if not isinstance(found, list) or len(found) != len(rows):  # pyright: ignore[reportUnknownArgumentType]
                raise ValueError(f"{where} is no list of {len(rows)}")
            for one, other in zip(rows, found, strict=True):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
                self._read(one, other, where, told)
        elif part in self.gaps:
            values = self.gaps[part]
            if not isinstance(found, str) or (values and found not in values):
                raise ValueError(f"{where} is {found!r}, not one of {', '.join(values) or 'any text'}")
            told[part] = found
        elif part != found:
            raise ValueError(f"{where} is {found!r}, not {part!r}")


def sheet(before: str, field: str, values: Sequence[str], number: int = 0) -> Sheet:
    """The sheet of one question: `before` is the text of the object up to the gap, its opening quote included.

    Where that is not the beginning of an object, the sheet is an object of the `field` alone.
    """
    mark = f"{_LEFT}{number}{_RIGHT}"
    try:
        skeleton = json.loads(before + mark + '"' + _closing(before))
    except ValueError:
        skeleton = None
    if not isinstance(skeleton, dict):
        skeleton = {field: mark}
    return Sheet(skeleton, {mark: tuple(values)})


def together(sheets: Sequence[Sheet]) -> list[Sheet]:
    """As few sheets as hold the gaps of all: those whose fixed parts agree become one."""
    done: list[Sheet] = []
    for one in sheets:
        for at, other in enumerate(done):
            try:
                done[at] = Sheet(_merged(other.skeleton, one.skeleton), {**other.gaps, **one.gaps})
                break
            except ValueError:
                continue
        else:
            done.append(one)
    return done


def number_of(mark: str) -> int:
    """The number that a sheet's mark was made with."""
    return int(mark.strip(_LEFT + _RIGHT))


def _merged(one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        first, second = cast(dict[str, Any], one), cast(dict[str, Any], other)
        both: dict[str, Any] = {name: _merged(first[name], second[name]) for name in first if name in second}
        return first | second | both
    if one != other:
        raise ValueError("the sheets differ")
    return cast(Any, one)


def _closing(text: str) -> str:
    """What closes the brackets that are open at the end of the text, which ends inside a string."""
    stack: list[str] = []
    inside = escaped = False
    for letter in text:
        if escaped:
            escaped = False
        elif inside and letter == "\\":
            escaped = True
        elif letter == '"':
            inside = not inside
        elif not inside and letter in "{[":
            stack.append("}" if letter == "{" else "]")
        elif not inside and letter in "}]" and stack:
            stack.pop()
    return "".join(reversed(stack))

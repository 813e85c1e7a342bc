"""YAML files of people, read into a checked model; what is wrong is told in plain words, with file, line and field."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from finllm.errors import InputError
from finllm.tools.data.unique_keys import refuse_repeated_keys

M = TypeVar("M", bound=BaseModel)
Check = Callable[[Any], "Mapping[tuple[int | str, ...], str]"]
"""Looks at the validated model; what is wrong with it, by the field that it is wrong in."""

_READ_AS = {"bool": "yes or no", "int": "a number", "float": "a number", "null": "nothing"}
"""What YAML 1.1 takes an unquoted word for, by the end of its tag."""


class _Loader(yaml.SafeLoader):
    """YAML without dates of its own: the schema reads them, and can name the field of an impossible one."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(
    path: Path, model: type[M], what: str, *, needs: str, example: str, check: Check | None = None
) -> M:  # fmt: skip
    """Read a YAML file into `model`. `what` names the kind of file; `needs` says what it holds; `example` where one is.

    `check` looks further than the model can. Errors: one InputError that names every problem with its line and field.
    """
    node, data = _parsed(path, what, example)
    if not isinstance(data, dict):
        raise InputError(f"{path}:1: {needs}", fix=example)
    problems = list(_unquoted_keys(node))
    if problems:
        raise _refused(path, node, problems)
    try:
        found = model.model_validate(data)
    except ValidationError as error:
        raise _refused(path, node, [(one["loc"], plain_words(one, _raw(node, one["loc"]), model))
                                    for one in error.errors()], what) from error  # fmt: skip
    if check is not None and (further := check(found)):
        raise _refused(path, node, list(further.items()), what)
    return found


def plain_words(problem: ErrorDetails, raw: str | None = None, model: type[BaseModel] | None = None) -> str:
    """What a validation error says, in a user's words and with the mend. `raw` is the text as it was written."""
    kind, about, given = problem["type"], problem.get("ctx", {}), problem["input"]
    said = repr(raw if raw is not None else given) if not isinstance(given, dict | list | tuple) else "what is there"
    match kind:
        case "missing":
            return "is not there; add it"
        case "extra_forbidden":
            return f"is no field of this{_meant(str(problem['loc'][-1]), model)}"
        case "value_error" | "assertion_error":
            return str(problem["msg"]).partition(", ")[2]
        case "literal_error" | "enum":
            return f"{said} is not one of {about.get('expected', '')}"
        case "string_pattern_mismatch":
            return f"{said} has other signs than a name here may have ({about['pattern']})"
        case "string_too_short":
            return "is empty; write a text"
        case "string_too_long" | "too_long":
            return f"is too long: at most {about['max_length']} are allowed"
        case "string_type" | "string_sub_type":
            return _no_text(given, raw)
        case "finite_number":
            return f"{said} is not a finite number; write one"
        case _:
            return _by_family(kind, about, said)


def _by_family(kind: str, about: Mapping[str, Any], said: str) -> str:
    for name, words in (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most")):
        if name in about:
            return f"{said} is not {words} {about[name]:g}"
    if kind.startswith("datetime"):
        return f"{said} is not a time; write it as 2022-06-29T18:10:00Z"
    if kind.startswith("date"):
        return f"{said} is not a date; write it as 2022-06-30"
    if kind.startswith("int"):
        return f"{said} is not a whole number"
    if kind.startswith(("float", "decimal")):
        return f"{said} is not a number"
    if kind.startswith("bool"):
        return f"{said} is not true or false"
    if kind.startswith(("list", "tuple", "set", "iterable")):
        return "is not a list; write [one, another], or one to a line after '- '"
    if kind.startswith(("dict", "mapping", "model")):
        return "is not a mapping; write name: value"
    return f"{said} cannot be used here"


def _no_text(given: object, raw: str | None) -> str:
    if isinstance(given, dict | list):
        return "is not a text; write one"
    if given is None:
        return "is empty; write a text" if not raw else f"{raw} is read as nothing; write it in quotes: '{raw}'"
    word = raw if raw is not None else str(given)
    as_what = _READ_AS["bool"] if isinstance(given, bool) else _READ_AS["float"]
    return f"{word} is read as {as_what}; write it in quotes: '{word}'"


def _meant(name: str, model: type[BaseModel] | None) -> str:
    """The fields that there are, or the one that was probably meant."""
    if model is None:
        return "; leave it out"
    fields, all_names = _fields(model)
    if close := difflib.get_close_matches(name, all_names, n=1):
        return f"; did you mean {close[0]!r}?"
    return f"; it has {', '.join(fields)}"


@cache
def _fields(model: type[BaseModel]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The fields of a file's own, and those of everything in it."""
    schema = model.model_json_schema()
    parts = (schema, *schema.get("$defs", {}).values())
    return tuple(schema.get("properties", {})), tuple(one for part in parts for one in part.get("properties", {}))


def _parsed(path: Path, what: str, example: str) -> tuple[Any, object]:
    """The file as nodes, which know their lines, and as data. Errors: InputError for what is no YAML file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"no {what} at {str(path)!r}", fix=example) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}", fix="give a UTF-8 YAML file") from error
    try:
        node = yaml.compose(text, Loader=_Loader)
        refuse_repeated_keys(node)
        return node, yaml.load(text, Loader=_Loader)
    except RecursionError as error:
        raise InputError(f"{path}:1: nested too deeply", fix=f"write it as other {what} are") from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(f"{path}:{line}: not YAML: {problem}", fix="correct that line") from error


def _refused(
    path: Path, node: Any, problems: list[tuple[tuple[int | str, ...], str]], what: str = ""
) -> InputError:  # fmt: skip
    lines = [f"{path}:{line_of(node, loc)}: field {_dotted(loc, what)!r}: {words}" for loc, words in problems]
    return InputError("\n".join(lines), fix="correct the field" + ("s" if len(lines) > 1 else ""))


def _dotted(loc: tuple[int | str, ...], what: str) -> str:
    return ".".join(str(part) for part in loc) or what


def _unquoted_keys(root: Any) -> Iterator[tuple[tuple[int | str, ...], str]]:
    """Keys that YAML 1.1 takes for something else than a name, each looked at once however many aliases lead there."""
    waiting: list[tuple[tuple[int | str, ...], Any]] = [((), root)]
    visited: set[int] = set()
    while waiting:
        loc, node = waiting.pop(0)
        if id(node) in visited:
            continue
        visited.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                kind = str(key.tag).rpartition(":")[2]
                if kind in _READ_AS:
                    yield (*loc, key.value), f"{key.value} is read as {_READ_AS[kind]}; write it in quotes: " \
                                             f"'{key.value}'"  # fmt: skip
                waiting.append(((*loc, str(key.value)), value))
        elif isinstance(node, yaml.SequenceNode):
            waiting += [((*loc, at), value) for at, value in enumerate(node.value)]


def line_of(node: Any, loc: tuple[int | str, ...]) -> int:
    """Line of the deepest YAML node that `loc` leads to; a missing field is placed at its parent."""
    return _followed(node, loc)[0]


def _raw(node: Any, loc: tuple[int | str, ...]) -> str | None:
    """The scalar at `loc` as it was written, without its quotes; None where there is none."""
    _, found = _followed(node, loc)
    return str(found.value) if isinstance(found, yaml.ScalarNode) else None


def _followed(node: Any, loc: tuple[int | str, ...]) -> tuple[int, Any]:
    """The line that `loc` leads to and the node there, None where the path breaks off."""
    line = node.start_mark.line + 1
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if found is None:
                return line, None
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line, None
    return line, node

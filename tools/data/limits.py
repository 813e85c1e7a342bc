"""Limits: how much a book may lose, by factor, sector and position, from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finllm.errors import InputError
from finllm.tools.data.unique_keys import refuse_repeated_keys

_FILE_EXAMPLE = "see 'finllm scenarios list' for the shipped portfolio"

Usd = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)]


class Limits(BaseModel):
    """Largest losses allowed, as positive USD. The key `each` stands for every name that has no limit of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: int | str
    loss_by_factor: dict[str, Usd] = {}
    loss_by_sector: dict[str, Usd] = {}
    loss_by_position: dict[str, Usd] = {}
    var_975_1d: Usd | None = None
    restricted: list[str] = []


def load_limits(path: Path) -> Limits:
    """Read a YAML file of limits. Errors: InputError naming file, line and field."""
    try:
        text = path.read_text(encoding="utf-8")
        node, data = yaml.compose(text, Loader=yaml.CSafeLoader), yaml.load(text, Loader=yaml.CSafeLoader)
        refuse_repeated_keys(node)
    except FileNotFoundError as error:
        raise InputError(f"no limits at {str(path)!r}", fix="correct the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}", fix="give a UTF-8 YAML file") from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise InputError(f"{path}:{line}: not YAML: {error}", fix="correct that line") from error
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"{path}:1: limits are a mapping with 'version' and the limits", fix=_FILE_EXAMPLE)
    try:
        return Limits.model_validate(data)
    except ValidationError as error:
        raise InputError(
            "\n".join(
                f"{path}:{_line(node, one['loc'])}: field {'.'.join(map(str, one['loc']))!r}: {one['msg']}"
                for one in error.errors()
            ),
            fix="correct the limits",
        ) from error


def _line(node: Any, loc: tuple[int | str, ...]) -> int:
    line = node.start_mark.line + 1
    for part in loc:
        found = next(
            ((key, value) for key, value in getattr(node, "value", ()) if key.value == str(part)), None
        ) if isinstance(node, yaml.MappingNode) else None  # fmt: skip
        if found is None:
            return line
        line, node = found[0].start_mark.line + 1, found[1]
    return line

"""The catalogue of what the chat answers: kinds of question as data (`kinds/*.yaml`), read once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

FOLDER = Path(__file__).with_name("kinds")
NONE = "none"
"""The kind of what nothing here answers."""


class Kind(BaseModel):
    """A kind of question. `says`: what it asks for, in a sentence; `slots`: the names that it takes, `needs` those that
    it cannot do without; `command`: what repeats its answer, with the run in place of `{run}`; `answers`: the sentences
    of its answer by name, each with references in [[ ]] that its reader fills; `forms`: sentences from which intent is
    learned; `confirms`: it computes, and only once it was told to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    says: str
    command: str
    answers: dict[str, str]
    forms: tuple[str, ...]
    slots: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    confirms: bool = False


@cache
def catalogue() -> Mapping[str, Kind]:
    """Every kind by its id, in the order of the files."""
    import yaml

    found: dict[str, Kind] = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        rows = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        found |= {id: Kind.model_validate({"id": id, **row}) for id, row in rows.items()}
    return found


def answerable() -> list[Kind]:
    """The kinds that have an answer, which is all but the one for everything else."""
    return [kind for kind in catalogue().values() if kind.id != NONE]

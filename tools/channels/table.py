"""The table of channels, read and checked: what each means, which factors it moves how far, why, and where seen."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from finllm.errors import InputError

TABLE_PATH = Path(__file__).with_name("table.yaml")
NOTHING = "nothing_"
"""How the names of those channels begin that move nothing: what a text is about that opens no other."""

LARGEST = 3
Relative = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
"""Sign and relative size of a move: 3 for the factor that a channel is about, 1 for one that moves, but little."""


class Channel(BaseModel):
    """A way by which an event reaches markets. `says`: plain sentences to which a text is compared.

    `moves`: by factor the sign and relative size; a factor that is not named is not moved by a rule. `episodes`: where
    it was seen, by the names that economists give them; none for a channel of `NOTHING`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    means: str = Field(min_length=1)
    moves: Mapping[str, Relative]
    why: str = Field(min_length=1)
    episodes: tuple[str, ...] = ()
    says: tuple[str, ...] = Field(min_length=2)


_TABLE = TypeAdapter(dict[str, Channel])


@cache
def channel_table() -> Mapping[str, Channel]:
    """The closed list, by name in its order (`table.yaml`); read once, on first use."""
    return _TABLE.validate_python(yaml.load(TABLE_PATH.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader))


def known_channel(name: str) -> str:
    """The name, if it is on the list and moves something. Errors: ValueError."""
    if name.startswith(NOTHING) or name not in channel_table():
        raise ValueError(f"no channel {name!r} in tools/channels/table.yaml")
    return name


def with_columns(columns: Mapping[str, Mapping[str, int]]) -> Mapping[str, Channel]:
    """The list with further factors: `columns` has by factor its sign and relative size in each channel that moves it.

    Errors: InputError for a channel that is not on the list, a size outside -3 to 3, or a factor that has a column.
    """
    table = dict(channel_table())
    theirs = {factor for row in channel_table().values() for factor in row.moves}
    for factor, sizes in columns.items():
        if factor in theirs:
            raise InputError(f"{factor!r} has a column in the table of channels",
                             fix="give columns of your own factors")  # fmt: skip
        for name, size in sizes.items():
            if name not in table or name.startswith(NOTHING):
                raise InputError(f"no channel {name!r}, by which {factor!r} is said to move",
                                 fix="use one of docs/channels.md, which lists them")  # fmt: skip
            if not size or not -LARGEST <= size <= LARGEST:
                raise InputError(f"{factor!r} is said to move by {size} in {name!r}",
                                 fix=f"give a whole number from -{LARGEST} to {LARGEST}, and leave out what does not "
                                 "move it")  # fmt: skip
            table[name] = table[name].model_copy(update={"moves": {**table[name].moves, factor: size}})
    return table

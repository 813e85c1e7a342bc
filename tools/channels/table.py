"""The table of channels, read and checked: what each means, which factors it moves how far, why, and where seen."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

TABLE_PATH = Path(__file__).with_name("table.yaml")
NOTHING = "nothing_"
"""How the names of those channels begin that move nothing: what a text is about that opens no other."""

Relative = Annotated[int, Field(ge=-3, le=3)]
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

"""What a report says of the channels that an event opens: each with its probability, its sentence and what it moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from finllm.graphs.figures import Figure
from finllm.graphs.rows import ThroughChannels
from finllm.tools.channels import Opened, with_columns
from finllm.tools.evidence import EvidenceTable

CHANNELS_HEADER = ("channel", "state", "open", "moves", "read from")
NOTHING_OPEN = "Nothing here bears on markets: no channel is opened."
OPEN = 0.5
"""From this probability on a channel is called open."""
SHOWN = 0.2
"""Channels less likely than this stand in the evidence alone."""


class ChannelLine(BaseModel):
    """A channel: in which direction in time, how likely it is open, and the `words` it was read from: those of `source`
    or of the event itself; `others` speak of it too. `moves`: by factor the sign and relative size, 1 to 3.
    """

    model_config = ConfigDict(frozen=True)

    channel: str
    state: str
    probability: Figure
    words: str
    source: str | None
    others: tuple[str, ...]
    moves: dict[str, int]

    @property
    def moving(self) -> str:
        return moves_words(self.moves)

    @property
    def read_from(self) -> str:
        """The sentence, whose it is, and who else speaks of it."""
        also = f"; also {', '.join(self.others)}" if self.others else ""
        return f"“{self.words}” ({self.source or 'the event'}{also})"


def moves_words(moves: Mapping[str, int]) -> str:
    """Factors with the sign and relative size of their moves, the largest first: `OIL_WTI +++, EQUITY_US −−`."""
    ordered = sorted(moves.items(), key=lambda item: -abs(item[1]))
    return ", ".join(f"{factor} {('+' if size > 0 else '−') * abs(size)}" for factor, size in ordered) or "nothing"


def channel_lines(through: ThroughChannels | None, table: EvidenceTable) -> tuple[ChannelLine, ...]:
    """The channels worth a line: those that may be open, and those that the text denies."""
    if through is None:
        return ()
    known = with_columns(through.columns)
    return tuple(
        ChannelLine(
            channel=row.opened.channel, state=row.opened.state, words=row.words, source=row.source, others=row.others,
            moves=dict(known[row.opened.channel].moves),
            probability=Figure(value=float(table[row.evidence].value), unit="probability", evidence=row.evidence),
        )
        for row in through.rows if worth_a_line(row.opened)
    )  # fmt: skip


def worth_a_line(opened: Opened) -> bool:
    return opened.probability >= SHOWN or opened.state == "denied"


def told(lines: Sequence[ChannelLine]) -> list[str]:
    """What is said above the channels: that none is open, or which pull a factor both ways."""
    open_ = [line for line in lines if line.probability.value >= OPEN]
    if not open_:
        return [NOTHING_OPEN]
    return fights({line.channel: line.moves for line in open_})


def fights(moves: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Factors that open channels pull both ways, with both sides."""
    found: list[str] = []
    for factor in dict.fromkeys(factor for of in moves.values() for factor in of):
        up = [name for name, of in moves.items() if of.get(factor, 0) > 0]
        down = [name for name, of in moves.items() if of.get(factor, 0) < 0]
        if up and down:
            found.append(f"{factor} is pulled up by {', '.join(up)} and down by {', '.join(down)}; the sizes decide.")
    return found


def channel_cells(lines: Sequence[ChannelLine]) -> list[tuple[str, ...]]:
    """A row of text for each channel, under `CHANNELS_HEADER`."""
    return [(line.channel, line.state, line.probability.cited, line.moving, line.read_from) for line in lines]

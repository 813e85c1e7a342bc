"""What opened channels do to factors: by the table, the odds of each factor's direction and of its move's size.

Each channel that moves a factor adds its relative size where it is open: whole where it happens, half where it is
feared. Channels are taken to open independently of each other, so that the distribution of their sum is exact; its
sign is the direction. Where two fight, the larger decides, and where both are equally large nobody can tell: half up,
half down. Only where none is open is a factor not moved.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from finllm.tools.channels.opened import Opened
from finllm.tools.channels.table import Channel, channel_table
from finllm.tools.data.factors import Direction, Size

HAPPENS, FEARED = 2, 1
"""How much a channel counts, in halves of its relative size."""
SIZES: tuple[tuple[float, Size], ...] = ((5.0, "large"), (3.0, "medium"), (0.0, "small"))
"""From which sum of halves on a move is so large: one channel's own factor is moved by 6 where it happens."""

Sums = Mapping[int, tuple[float, float]]
"""By sum of halves its probability, and how much of it is with no channel open."""


@dataclass(frozen=True)
class Pull:
    """What one opened channel does to one factor: `size` is its relative size with its sign, 1 to 3, by the table."""

    opened: Opened
    size: int


def pulls(opened: Iterable[Opened], factor: str, table: Mapping[str, Channel] | None = None) -> list[Pull]:
    """The channels that move a factor, the likeliest first. Errors: KeyError for a channel that the table has not."""
    rows = channel_table() if table is None else table
    found = [Pull(one, size) for one in opened if (size := rows[one.channel].moves.get(factor, 0))]
    return sorted(found, key=lambda one: -one.opened.probability)


def directions(
    opened: Sequence[Opened], factors: Iterable[str], table: Mapping[str, Channel] | None = None
) -> dict[str, dict[Direction, float]]:
    """By factor the probability that it goes up, goes down, or is not moved. Errors: as `pulls`."""
    return {factor: _direction(pulls(opened, factor, table)) for factor in factors}


def sizes(
    opened: Sequence[Opened], factors: Iterable[str], table: Mapping[str, Channel] | None = None
) -> dict[str, dict[Size, float]]:
    """By factor the probability of each size of its move, given that it moves; empty where nothing moves it."""
    return {factor: _size(pulls(opened, factor, table)) for factor in factors}


def _direction(moved: Sequence[Pull]) -> dict[Direction, float]:
    odds: dict[Direction, float] = {"up": 0.0, "down": 0.0, "none": 0.0}
    for total, (weight, shut) in _sums(moved).items():
        if total:
            odds["up" if total > 0 else "down"] += weight
        else:
            odds["none"] += shut
            odds["up"] += (weight - shut) / 2
            odds["down"] += (weight - shut) / 2
    return odds


def _size(moved: Sequence[Pull]) -> dict[Size, float]:
    odds: dict[Size, float] = {"small": 0.0, "medium": 0.0, "large": 0.0, "extreme": 0.0}
    for total, (weight, shut) in _sums(moved).items():
        size: Size = next(size for least, size in SIZES if abs(total) >= least)
        odds[size] += weight - shut
    moving = sum(odds.values())
    return {size: p / moving for size, p in odds.items()} if moving else {}


def _sums(moved: Sequence[Pull]) -> Sums:
    sums: dict[int, tuple[float, float]] = {0: (1.0, 1.0)}
    for pull in moved:
        p, happens = pull.opened.probability, pull.opened.happens
        ways = ((0, 1 - p), (HAPPENS * pull.size, p * happens), (FEARED * pull.size, p * (1 - happens)))
        after: dict[int, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        for total, (weight, shut) in sums.items():
            for add, chance in ways:
                had, had_shut = after[total + add]
                after[total + add] = (had + weight * chance, had_shut + (0.0 if add else shut * chance))
        sums = dict(after)
    return sums

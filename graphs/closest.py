"""The past events that are nearest to this one by what it does to the factors, its channels, region and severity."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finllm.memory.precedents import Precedent
from finllm.tools.channels import Opened
from finllm.tools.data.factors import Direction, FactorId
from finllm.tools.pnl.likeness import SEVERITIES, Likeness, Moves, apart, grade_of
from finllm.tools.pnl.shocks import Plan, Window
from finllm.tools.pnl.sizes import FactorView

if TYPE_CHECKING:
    from finllm.agents.narrative import Reading

NEAREST, MARGIN = 3, 0.5
"""Past events that the stress-tester chooses among at most, and σ beyond the nearest from which none is among them."""
VOICES = 3
"""Past events whose majority says where a factor went."""
KINDS: dict[str, tuple[str, ...]] = {
    "bank_run": ("run",), "blockade": ("blockade",), "central_bank_dovish": ("policy dovish",),
    "central_bank_hawkish": ("policy hawkish",), "default": ("default",), "fund_run": ("run",),
    "market_plumbing": ("outage", "cyber"), "pandemic": ("pandemic",), "peace": ("ceasefire",), "routine": ("none",),
    "sanctions": ("war", "tariffs", "supply"), "supply_shock": ("supply", "blockade"), "tariffs": ("tariffs",),
    "war": ("war", "blockade"), "election": ("election",), "natural_disaster": ("disaster",),
}  # fmt: skip
"""What an event of each kind of precedent would be read as."""
OPEN = 0.5
"""From this probability on a channel of the event counts in its likeness to past ones."""
REGIONS: dict[str, str] = {
    "united states": "us", "europe": "europe", "euro area": "europe", "united kingdom": "europe", "russia": "europe",
    "japan": "asia", "asia": "asia", "china": "asia", "middle east": "mideast", "north africa": "mideast",
    "global": "global",
}  # fmt: skip
"""The region that a place named in a precedent is in."""


@dataclass(frozen=True)
class Near:
    """A precedent and how far it is from the event, in σ."""

    past: Precedent
    distance: float


class PastEvents:
    """The precedents over by a view's day, each by what it did to the factors."""

    def __init__(self, precedents: Mapping[str, Precedent], view: FactorView) -> None:
        moves = Moves(view)
        self._past = [(one, likeness_of(one, moves)) for one in precedents.values() if one.end <= view.as_of]

    def nearest(self, event: Likeness, count: int = NEAREST) -> list[Near]:
        """The nearest and those about as near, ties by id; none that shares no factor with the event."""
        if not event.known():
            return []
        found = [Near(one, apart(event, past)) for one, past in self._past]
        near = sorted((one for one in found if math.isfinite(one.distance)), key=_order)[:count]
        return [one for one in near if one.distance <= near[0].distance + MARGIN]

    def of_factor(self, event: Likeness, factor: FactorId) -> list[Precedent]:
        """The `VOICES` nearest that say where a factor went, by all that the event did but for this factor itself: the
        event's own reading of it may not choose what it is held against.
        """
        rest = event.without(factor)
        found = [Near(one, apart(rest, past)) for one, past in self._past if factor in one.factors]
        close = sorted(
            (one for one in found if math.isfinite(one.distance)), key=lambda near: (near.distance, near.past.id)
        )
        return [near.past for near in close[:VOICES]]


def _order(near: Near) -> tuple[float, str]:
    return near.distance, near.past.id


def event_of(reading: Reading | None, plan: Plan, channels: Iterable[Opened] = ()) -> Likeness:
    """The event by its shocks and channels; a factor that was read as moving and has none (its support failed) is not
    counted."""
    sizes = {name: one.sigma for name, one in plan.shocks.items() if one.sigma is not None}
    directions: dict[str, Direction] = {
        name: "up" if one.move > 0 else "down" for name, one in plan.shocks.items() if one.sigma is None
    }
    if reading is None:
        return Likeness(sizes, directions)
    still = {
        name: 0.0 for name, call in reading.factors.items() if call.direction == "none" and name not in plan.shocks
    }
    kind = f"policy {reading.stance}" if reading.event == "policy" else reading.event
    opened = {one.channel: one.probability for one in channels if one.probability >= OPEN}
    return Likeness(
        still | sizes, directions, frozenset({kind}), frozenset({reading.region}), SEVERITIES.index(reading.severity),
        opened,
    )  # fmt: skip


def window_of(past: Precedent) -> Window:
    """From the last close before an event to that of its end: `start` is the first day that markets could react on."""
    return past.start - dt.timedelta(days=1), past.end


def likeness_of(past: Precedent, moves: Moves) -> Likeness:
    """A precedent by what it did to the factors, its kind, region and severity."""
    sizes = moves.over(window_of(past), past.factors)
    rest: dict[str, Direction] = {name: way for name, way in past.factors.items() if name not in sizes}
    regions = {region for place, region in REGIONS.items() if place in past.region.casefold()}
    return Likeness(sizes, rest, frozenset(KINDS.get(past.kind, ())), frozenset(regions), grade_of(sizes),
                    dict.fromkeys(past.channels, 1.0))  # fmt: skip

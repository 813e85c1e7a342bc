"""The story of a reverse answer: the kinds of event, and the past ones, that do to the factors what it does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finllm.tools.pnl.episodes import EPISODES
from finllm.tools.pnl.likeness import Likeness, Moves, apart
from finllm.tools.pnl.outcome import Frozen, ReverseAnswer, chance_words
from finllm.tools.pnl.sizes import FactorView

MOVES = 0.25
"""σ from which a factor counts as moving in a story."""
NEAREST = 2
"""Past events that a story names."""
KIND_WORDS = {
    "bank_run": "a run on banks", "blockade": "a route or a supply cut off",
    "central_bank_dovish": "policy easier than expected", "central_bank_hawkish": "policy tighter than expected",
    "default": "a default", "election": "an election", "fund_run": "a run on funds",
    "market_plumbing": "a failure in the working of markets", "natural_disaster": "a natural disaster",
    "pandemic": "a pandemic", "peace": "a relief", "routine": "a routine week", "sanctions": "sanctions",
    "supply_shock": "a shock to supply", "tariffs": "barriers to trade", "war": "a war",
}  # fmt: skip
"""The way by which each kind of past event reached the markets."""


@dataclass(frozen=True)
class Past:
    """A past event as a story needs it: what it is called, when it was, what kind and where, and what it did."""

    id: str
    title: str
    start: str
    end: str
    kind: str
    region: str
    likeness: Likeness


class StoryRow(Frozen):
    """A past event named in a story, and how far its moves are from the answer's, in σ."""

    id: str
    title: str
    start: str
    end: str
    distance: float
    same: tuple[str, ...]
    other: tuple[str, ...]


class ReverseStory(Frozen):
    """A short story of one answer. Every figure in it is a row's: the events', the answer's.

    `chance`: the probability of a loss of this size or more under the factor model, were the book linear: that of a
    Gaussian beyond `distance` σ.
    """

    text: str
    chance: float
    events: tuple[StoryRow, ...]
    episode: StoryRow | None


def story_of(answer: ReverseAnswer, past: Sequence[Past], view: FactorView) -> ReverseStory:
    """The nearest past events and the nearest named episode, and what they share with the answer, in words.

    Only past events of whose moves at least half are measured compete: a direction alone is as near as one likes. They
    are ranked with extreme moves all alike, but the distance told is that of the moves as they are.
    """
    moved = {one.factor: one.sigma for one in answer.moves if abs(one.sigma) >= MOVES}
    event = Likeness(sizes=moved, directions={})
    wide = [one for one in past if 2 * len(event.known() & one.likeness.sizes.keys()) >= len(moved)]
    near = sorted(((apart(event, one.likeness), one.id, one) for one in wide), key=lambda one: one[:2])
    rows = [_row(one, event, moved) for distance, _, one in near[:NEAREST] if math.isfinite(distance)]
    kinds = list(dict.fromkeys(KIND_WORDS.get(one.kind, one.kind) for _, _, one in near[: len(rows)]))
    named = _nearest_episode(event, view, moved)
    chance = math.erfc(answer.distance / math.sqrt(2)) / 2
    ways = [
        f"{name} {'up' if size > 0 else 'down'}" for name, size in sorted(moved.items(), key=lambda one: -abs(one[1]))
    ]
    said = [
        f"{', '.join(ways[:4])}: what came nearest in the past was {' or '.join(kinds)}."
        if kinds
        else f"{', '.join(ways[:4])}."
    ]
    for row in rows:
        other = f", other than here {', '.join(row.other)}" if row.other else ""
        said.append(f"Near is {row.title} ({row.start} to {row.end}, {row.distance:.1f} σ a factor apart), alike in"
                    f" {', '.join(row.same) or 'nothing'}{other}.")  # fmt: skip
    if named is not None:
        when = f"{named.start} to {named.end}"
        said.append(
            f"Of the named episodes {named.title} ({when}) is the nearest, {named.distance:.1f} σ a factor apart."
        )
    said.append(f"A loss of this size or more has {chance_words(chance)} under the factor model, were the book linear.")
    return ReverseStory(text=" ".join(said), chance=chance, events=tuple(rows), episode=named)


def _row(one: Past, event: Likeness, moved: dict[str, float]) -> StoryRow:
    distance = apart(event, one.likeness, math.inf)
    ways = {**{name: "up" if size > 0 else "down" for name, size in one.likeness.sizes.items() if abs(size) >= MOVES},
            **one.likeness.directions}  # fmt: skip
    shared = {name: ways[name] == ("up" if size > 0 else "down") for name, size in moved.items() if name in ways
              and ways[name] != "none"}  # fmt: skip
    same, other = (tuple(name for name, alike in shared.items() if alike is wanted) for wanted in (True, False))
    return StoryRow(id=one.id, title=one.title, start=one.start, end=one.end, distance=distance, same=same, other=other)


def _nearest_episode(event: Likeness, view: FactorView, moved: dict[str, float]) -> StoryRow | None:
    moves = Moves(view)
    found: list[tuple[float, str, Past]] = []
    for one in EPISODES.values():
        if one.end > view.as_of:
            continue
        likeness = Likeness(sizes=moves.over((one.start, one.end), moved), directions={})
        past = Past(one.id, one.title, one.start.isoformat(), one.end.isoformat(), "", "", likeness)
        found.append((apart(event, past.likeness), one.id, past))
    found = [one for one in found if math.isfinite(one[0]) and 2 * len(one[2].likeness.sizes) >= len(moved)]
    if not found:
        return None
    return _row(min(found, key=lambda one: one[:2])[2], event, moved)

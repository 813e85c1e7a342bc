"""Several texts about one event, read together: which channels they open, all in all, and who says so the plainest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finllm.tools.channels.opened import STATES, Opened, State

OWN_WEIGHT = 2.0
"""How much the event in its teller's own words counts, where each source counts 1."""
LEAST = 0.05
"""Below this probability a channel that no text denies is not worth a line."""


@dataclass(frozen=True)
class Told:
    """A channel by all the texts that speak of it. `texts`: which of them, the plainest first; 0 is the event itself.

    `opened` has their mean probability; its span lies in the first of `texts`.
    """

    opened: Opened
    texts: tuple[int, ...]


def together(event: Sequence[Opened], sources: Sequence[Sequence[Opened]] = ()) -> list[Told]:
    """The channels of an event and its sources, the likeliest first, ties by name.

    The probability is the mean over the texts that speak of a channel, the event itself counting `OWN_WEIGHT` and
    always, as what it leaves out is not part of it unless several sources say so. A source that is silent of a channel
    does not speak against it; one that denies it does.
    """
    weights = [OWN_WEIGHT, *(1.0 for _one in sources)]
    speaking: dict[str, dict[int, Opened]] = {}
    for at, opened in enumerate((event, *sources)):
        for one in opened:
            speaking.setdefault(one.channel, {})[at] = one
    found = [_one(by_text, weights) for by_text in speaking.values()]
    kept = [one for one in found if one.opened.probability >= LEAST or one.opened.state == "denied"]
    return sorted(kept, key=lambda one: (-one.opened.probability, one.opened.channel))


def _one(by_text: Mapping[int, Opened], weights: Sequence[float]) -> Told:
    total = sum(weights[at] for at in by_text) + (0.0 if 0 in by_text else OWN_WEIGHT)
    probability = sum(weights[at] * one.probability for at, one in by_text.items()) / total
    heard = sum(weights[at] for at in by_text)
    states: dict[State, float] = {
        state: sum(weights[at] * one.states.get(state, 0.0) for at, one in by_text.items()) / heard for state in STATES
    }
    order = sorted(by_text, key=lambda at: (-by_text[at].probability * weights[at], at))
    first = by_text[order[0]]
    state = max(states, key=lambda name: states[name]) if any(states.values()) else first.state
    return Told(
        Opened(channel=first.channel, probability=min(probability, 1.0), state=state,
               states=states if any(states.values()) else {}, start=first.start, end=first.end),
        tuple(order),
    )  # fmt: skip

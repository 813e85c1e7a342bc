"""Scenarios for the benchmark of batches: the shipped ones, and made-up events told by made-up publishers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import yaml

from finllm.scenarios import SCENARIOS_DIR

PLACES = (
    "the Danish straits", "the Panama locks", "the Kra road", "the Bering passage", "the Bosporus", "the Suez cutting",
    "the port of Rotterdam", "the port of Singapore", "the Gulf terminals", "the Alberta fields", "the Chilean mines",
    "the Rhine", "the Cape route", "the Houston channel",
)  # fmt: skip
EVENTS: tuple[tuple[str, str, str, str], ...] = (
    ("closed", "a collision and a fire close {place} to all traffic for weeks", "Crude jumped and freight rates rose",
     "Stocks fell and credit spreads widened"),
    ("on strike", "dock workers and pilots at {place} walk out and name no day for their return",
     "Oil prices rose as cargoes waited", "Shares slipped and volatility climbed"),
    ("under sanctions", "a group of governments bans all trade through {place} from next month",
     "Crude surged before the ban", "The dollar strengthened and gold climbed"),
    ("reopened early", "{place} reopens two months before anybody expected it", "Crude fell below its old price",
     "Stocks rallied and the volatility index dropped"),
    ("hit by a storm", "a storm of a kind not seen in thirty years shuts {place} and floods its depots",
     "Fuel became dear and crude rose", "Insurers' shares fell and Treasury yields eased"),
    ("seized", "armed men seize the control rooms of {place} and stop the pumps",
     "Oil spiked at the open", "Stocks fell sharply, gold rose and investors bought Treasuries"),
    ("taxed anew", "a new levy on every ton that passes {place} is signed into law",
     "Freight became dearer and crude was firmer", "Shares of importers fell and spreads widened a little"),
)  # fmt: skip
TOLD = (
    "Traders who were asked said that {reaction}, and that nobody knew yet how long it would last.",
    "At the close {reaction}. Brokers spoke of the busiest day of the month.",
    "According to the morning note, {reaction}, while most desks kept their limits as they were.",
    "{reaction} within an hour of the news, and the move had not been taken back by evening.",
    "In late trading {reaction}; the first estimates of the damage differ by a factor of three.",
)
ASIDES = (
    "A spokesman for the harbour board would not give a date.",
    "Two insurers have withdrawn cover for the coming weeks.",
    "Refiners say that their tanks hold about a month of feedstock.", "The ministry calls a meeting for Thursday.",
    "Ships that were under way have been told to anchor outside the marked area.",
    "Economists expect the effect on prices to fade within a quarter.", "A union paper reports talks at night.",
    "Pipelines can carry less than half of what is stuck.", "Rating agencies put three carriers under review.",
    "Warehouses inland are said to be full of what should have gone out.", "No customer has yet been turned away.",
    "The regulator asks banks for their exposures by Monday.", "Fishermen were the first to notice.",
)  # fmt: skip
PUBLISHERS = (
    "Meridian Newswire", "Harbour Street Research", "Barrel and Tonne", "Continental Wire Service", "Refiners Weekly",
    "Old Exchange Brokers", "Lane and Lock Gazette", "Quay Ledger", "Northern Freight Review",
)  # fmt: skip
HORIZONS = (5, 10, 15, 20)


def write_scenarios(folder: Path, count: int) -> list[Path]:
    """Copies of the shipped scenarios, as many as fit, and made-up ones up to `count`; the same every time."""
    folder.mkdir(parents=True, exist_ok=True)
    shipped = sorted(SCENARIOS_DIR.glob("*.yaml"))
    half = shipped if count >= 2 * len(shipped) else shipped[: (count + 1) // 2]
    found: list[Path] = []
    for path in half:
        copy = folder / path.name
        copy.write_bytes(path.read_bytes())
        found.append(copy)
    for at in range(count - len(half)):
        path = folder / f"made-up-{at + 1:02}.yaml"
        path.write_text(yaml.safe_dump(made_up(at), sort_keys=False, allow_unicode=True), encoding="utf-8")
        found.append(path)
    return found


def made_up(at: int) -> dict[str, Any]:
    """The made-up scenario of a number: place and event differ from those of every other number up to 97."""
    draw = random.Random(at)
    place, (word, what, first, second) = PLACES[at % len(PLACES)], EVENTS[at % len(EVENTS) - at // len(PLACES)]
    happened = what.format(place=place)
    publishers = draw.sample(PUBLISHERS, 7)
    sources = [
        {"id": f"made-{at}-{number}", "publisher": publisher,
         "published_at": f"2022-06-{27 + number % 3}T0{number}:00:00Z",
         "url": f"https://example.com/{at}/{number}", "text": _article(happened, (first, second), number, draw)}
        for number, publisher in enumerate(publishers, start=1)
    ]  # fmt: skip
    narrative = (
        f"It is assumed that {happened}. {first}, and over the following days {second[0].lower()}{second[1:]}. "
        f"{' '.join(draw.sample(ASIDES, 3))} Policy makers say that they are watching and have not acted."
    )
    return {"title": f"{place.removeprefix('the ').capitalize()} {word}", "as_of": "2022-06-30",
            "horizon": HORIZONS[at % len(HORIZONS)], "approved_by": "The benchmark", "narrative": narrative,
            "sources": sources}  # fmt: skip


def _article(happened: str, reactions: tuple[str, str], number: int, draw: random.Random) -> str:
    """About eighty words: the event, how the market took it, and asides."""
    reaction = reactions[number % 2]
    told = draw.choice(TOLD)
    at_start = told.startswith("{reaction}")
    said = told.format(reaction=reaction if at_start else reaction[0].lower() + reaction[1:])
    return " ".join([f"{happened[0].upper()}{happened[1:]}, as was learned on day {_DAYS[number % 3]}.", said,
                     *draw.sample(ASIDES, 4)])  # fmt: skip


_DAYS = ("one", "two", "three")

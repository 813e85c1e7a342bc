"""What the channel reader is trained on: our own texts, real ones by their labels, the table's sentences, off-topic
notices that nobody labelled; and which of them are left out, by author and by source, to be scored alone.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from finllm.files import sha256_of_file
from finllm.tools.channels import NOTHING, STATES, channel_table
from finllm.tools.channels.table import TABLE_PATH
from finllm.tools.data.factors import FACTOR_IDS
from training.corpus.channel_items import LABELS, OWN, Kind, OwnItem, RealLabels, own_items, real_labels, real_texts

CHANNELS: tuple[str, ...] = tuple(name for name in channel_table() if not name.startswith(NOTHING))
FIELDS: Mapping[str, tuple[str, ...]] = {
    "event": get_args(Kind),
    "region": ("us", "europe", "asia", "mideast", "global"),
    "stance": ("hawkish", "dovish", "neutral"),
    "severity": ("low", "medium", "high", "extreme"),
} | dict.fromkeys(FACTOR_IDS, ("up", "down", "none"))
SIGNS: Mapping[str, str] = {"+": "up", "-": "down", "0": "none"}
LEFT_OUT = ("own/e", "fed/press_conference")
"""An author, with all his manners, and a real source: nothing of them is trained on."""
OFF_TOPIC = "off"
SAYS = "says"
OFF_TRAINED, OFF_KEPT = 150, 300
"""Off-topic notices that are trained on, as opening nothing, and those that the threshold is fitted on."""


@dataclass(frozen=True)
class Example:
    """A text with its labels. `group`: its author or source; `channels` None and a missing field: not labelled."""

    text: str
    group: str
    manner: str
    channels: Mapping[str, str] | None
    signs: Mapping[Any, str]
    fields: Mapping[str, int]
    weight: float

    @property
    def real(self) -> bool:
        return not self.group.startswith(("own/", SAYS))


@dataclass(frozen=True)
class Split:
    """What is trained on, what is left out by author and source, and the off-topic notices of the threshold."""

    train: list[Example]
    left_out: list[Example]
    off_topic: list[Example]


def split(left_out: Sequence[str] = LEFT_OUT, real_weight: float = 0.7) -> Split:
    """Errors: none where the real texts are not at hand; the split then has none of them."""
    found = [*_own(), *_real(real_weight)]
    off = _off_topic()
    return Split(
        [one for one in found if one.group not in left_out] + off[:OFF_TRAINED] + _said(),
        [one for one in found if one.group in left_out],
        off[OFF_TRAINED : OFF_TRAINED + OFF_KEPT],
    )


def kept_apart(author: str) -> list[Example]:
    """The texts of a held-out author, which nothing was fitted or chosen on."""
    return [_example(item.text, author, item.manner, item, 1.0, None) for item in own_items(held_out=author)]


def corpus_digest() -> str:
    """Hex sha256 over the labels and texts that are here and the table; of real texts, over their labels alone."""
    files = [*sorted(OWN.glob("*.jsonl")), *sorted(LABELS.glob("*.jsonl")), TABLE_PATH]
    return hashlib.sha256("".join(sha256_of_file(path) for path in files).encode()).hexdigest()


def _own() -> list[Example]:
    return [_example(item.text, f"own/{item.author}", item.manner, item, 1.0, item.region) for item in own_items()]


def _real(weight: float) -> list[Example]:
    """Of a text that was labelled twice, the first labels."""
    texts, first = real_texts(), {label.id: label for label in reversed(real_labels())}
    return [
        _example(texts[name], "/".join(name.split("/")[:2]), name.split("/")[1], label, weight, None)
        for name, label in first.items()
        if name in texts
    ]


def _off_topic() -> list[Example]:
    """Notices that nobody labelled, drawn by chance: nearly none bears on markets, and those count as errors."""
    labelled = {label.id for label in real_labels()}
    names = [name for name in real_texts() if name.startswith("notices/federal_register") and name not in labelled]
    random.Random(0).shuffle(names)
    none = dict.fromkeys(FACTOR_IDS, "0")
    return [
        Example(real_texts()[name], OFF_TOPIC, OFF_TOPIC, {}, none,
                {"stance": FIELDS["stance"].index("neutral")} | _signs(none), 0.5) for name in names
    ]  # fmt: skip


def _said() -> list[Example]:
    """The table's own plain sentences."""
    found: list[Example] = []
    for name, channel in channel_table().items():
        signs = {factor: "+" if move > 0 else "-" for factor, move in channel.moves.items() if abs(move) > 1}
        if name.startswith(NOTHING):
            signs = dict.fromkeys(FACTOR_IDS, "0")
        channels = {} if name.startswith(NOTHING) else {name: STATES[0]}
        found += [Example(one, SAYS, SAYS, channels, signs, _signs(signs), 0.7) for one in channel.says]
    return found


def _example(
    text: str, group: str, manner: str, labels: OwnItem | RealLabels, weight: float, region: str | None
) -> Example:
    told: dict[str, Any] = {"event": labels.kind, "region": region, "stance": labels.stance,
                            "severity": labels.severity}  # fmt: skip
    fields = {field: FIELDS[field].index(value) for field, value in told.items() if value is not None}
    return Example(text, group, manner, labels.channels, labels.signs, fields | _signs(labels.signs), weight)


def _signs(signs: Mapping[Any, str]) -> dict[str, int]:
    return {factor: FIELDS[factor].index(SIGNS[sign]) for factor, sign in signs.items()}

"""Train the channel reader: `make channels` fits it on the corpus and on the real texts beside the checkout.

An author and a real source are left out of training whole. Half of their texts, by digest, choose the temperatures and
the shift; the other half is scored. The second author's texts are scored last, with everything frozen.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from finllm.files import sha256_of_file
from finllm.models.channel_reader import NAMES, WINDOW, ChannelCard
from finllm.models.embedding import EMBEDDING_NAME, Embedder
from finllm.models.encoder import ENCODER_NAME, Encoder, ensure_encoder
from finllm.models.second_opinion import HEADS
from finllm.settings import load_settings
from finllm.tools.channels import STATES, Opened, directions
from finllm.tools.channels.table import TABLE_PATH
from finllm.tools.data.factors import FACTOR_IDS
from training.channel_examples import CHANNELS, FIELDS, SIGNS, Example, corpus_digest, second_author, split
from training.channel_network import Network, Plan, centres, lower_states, padded, train
from training.second_opinion import temperature

FLOOR, OPEN = 0.05, 0.5
"""The least probability that is told, and that from which on a text counts as opening a channel."""
OFF_TOPIC_MOST = 0.02
PLANS: Mapping[str, Plan] = {EMBEDDING_NAME: Plan(), ENCODER_NAME: Plan(frozen=9)}
LIMITS = (
    f"English, {WINDOW} tokens at a time; of a long text the first six and the last two such pieces.",
    "Trained on texts and labels by language models of one family; on other manners it is less right, and surer than "
    "it should be.",
    "A denial far from what it denies, in another piece of a long text, is weighed against it, not understood.",
    "It sees the text alone: neither what was expected nor the market.",
)
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Logits:
    """Of n texts: `named` (n, c), `states` (n, c, 4), and by field (n, values)."""

    named: Floats
    states: Floats
    fields: dict[str, Floats]

    def rows(self, chosen: Sequence[int]) -> Logits:
        return Logits(self.named[chosen], self.states[chosen], {name: of[chosen] for name, of in self.fields.items()})


@torch.no_grad()
def logits_of(network: Network, states: Sequence[torch.Tensor]) -> Logits:
    network.eval()
    named = np.zeros((len(states), len(CHANNELS)))
    told = np.zeros((len(states), len(CHANNELS), len(STATES)))
    fields = {field: np.zeros((len(states), len(values))) for field, values in FIELDS.items()}
    order = sorted(range(len(states)), key=lambda at: len(states[at]))
    for start in range(0, len(order), 32):
        rows = order[start : start + 32]
        read = network(*padded([states[row] for row in rows]))
        named[rows], told[rows] = read.named.double().numpy(), read.states.double().numpy()
        for field, of in read.fields.items():
            fields[field][rows] = of.double().numpy()
    return Logits(named, told, fields)


def odds(logits: Floats, heat: float) -> Floats:
    scaled = np.exp((logits - logits.max(axis=-1, keepdims=True)) / heat)
    return scaled / scaled.sum(axis=-1, keepdims=True)


def opened(logits: Logits, at: int, card: Mapping[str, float]) -> list[Opened]:
    """The channels of one text, as the reader tells them; spans are not looked at here."""
    named = 1 / (1 + np.exp(-(logits.named[at] - card["shift"]) / card["named"]))
    states = odds(logits.states[at], card["states"])
    found: list[Opened] = []
    for of, channel in enumerate(CHANNELS):
        probability = float(named[of] * states[of, :2].sum())
        if probability >= FLOOR:
            told = dict(zip(STATES, map(float, states[of]), strict=True))
            found.append(Opened(channel=channel, probability=probability, state=max(told, key=lambda s: told[s]),
                                states=told, start=0, end=0))  # fmt: skip
    return found


def opens(logits: Logits, card: Mapping[str, float]) -> float:
    """The share of texts that open a channel."""
    named = 1 / (1 + np.exp(-(logits.named - card["shift"]) / card["named"]))
    return float(((named * odds(logits.states, card["states"])[..., :2].sum(axis=-1)) >= OPEN).any(axis=1).mean())


def scores_of(logits: Logits, examples: Sequence[Example], card: Mapping[str, float], by: Callable[[Example], str]
              ) -> dict[str, float]:  # fmt: skip
    """Shares that are right, in all and by group: `signs` of those labelled up or down, by the table; `asked` the same
    by the directions asked straight; `nothing` of those labelled 0; `state`, and the fields."""
    found: defaultdict[str, list[bool]] = defaultdict(list)

    def note(example: Example, what: str, right: bool) -> None:
        for name in (what, f"{by(example)}.{what}"):
            found[name].append(right)

    for at, example in enumerate(examples):
        told = directions(opened(logits, at, card), FACTOR_IDS)
        for factor, sign in example.signs.items():
            what = "nothing" if sign == "0" else "signs"
            guessed = max(told[factor], key=lambda way: told[factor][way])
            note(example, what, guessed == SIGNS[sign])
            straight = FIELDS[factor][int(logits.fields[factor][at].argmax())]
            note(example, f"asked.{what}", straight == SIGNS[sign])
        for channel, state in (example.channels or {}).items():
            read = STATES[int(logits.states[at, CHANNELS.index(channel)].argmax())]
            note(example, "state", read == state)
            note(example, f"state.{state}", read == state)
        for field in ("event", "region", "stance", "severity"):
            if field in example.fields:
                note(example, field, int(logits.fields[field][at].argmax()) == example.fields[field])
    return {name: round(float(np.mean(right)), 4) for name, right in sorted(found.items())}


def calibrate(logits: Logits, examples: Sequence[Example], off_topic: Logits) -> dict[str, float]:
    """Temperatures of states and fields by likelihood; then of `named` the shift and temperature with the most right
    signs and right nothings, of those at which at most `OFF_TOPIC_MOST` of the off-topic notices open a channel."""
    card: dict[str, float] = {"shift": 0.0, "named": 1.0, "states": 1.0}
    told = [(at, CHANNELS.index(name), STATES.index(state)) for at, one in enumerate(examples)
            for name, state in (one.channels or {}).items()]  # fmt: skip
    if told:
        rows = np.array([logits.states[at, of] for at, of, _ in told])
        card["states"] = round(temperature(rows, np.array([state for *_, state in told])), 3)
    for field in FIELDS:
        rows = [at for at, one in enumerate(examples) if field in one.fields]
        wanted = np.array([examples[at].fields[field] for at in rows])
        card[field] = round(temperature(logits.fields[field][rows], wanted), 3)

    def right(shift: float, heat: float) -> float:
        tried = card | {"shift": shift, "named": heat}
        if opens(off_topic, tried) > OFF_TOPIC_MOST:
            return -1.0
        found = scores_of(logits, examples, tried, lambda _: "all")
        return found.get("signs", 0.0) + found.get("nothing", 0.0)

    tries = [(shift, heat) for shift in np.arange(-3.0, 1.01, 0.5) for heat in (0.5, 0.75, 1.0)]
    shift, heat = max(tries, key=lambda one: right(*one))
    return card | {"shift": float(shift), "named": float(heat)}


def halves(examples: Sequence[Example]) -> tuple[list[int], list[int]]:
    """Those to choose on and those to score, by the text's digest."""
    first = [int(hashlib.sha256(one.text.encode()).hexdigest(), 16) % 2 == 0 for one in examples]
    return [at for at, one in enumerate(first) if one], [at for at, one in enumerate(first) if not one]


def save(learned: Mapping[str, torch.Tensor], folder: Path, name: str) -> str:
    """Write the weights in half precision; gives their sha256."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    save_file({key: tensor.half().contiguous() for key, tensor in learned.items()}, path)
    return sha256_of_file(path)


def card_of(encoder: Encoder, plan: Plan, sha256: str, heat: Mapping[str, float], scores: Mapping[str, float],
            counted: str) -> ChannelCard:  # fmt: skip
    """The card, with the digest of all that a score depends on, as it is before the second author's texts are read."""
    table = sha256_of_file(TABLE_PATH)
    frozen = hashlib.sha256(f"{sha256}{table}{sorted(heat.items())}{FLOOR}{OPEN}".encode()).hexdigest()
    return ChannelCard(
        name=NAMES[encoder.name], encoder=encoder.name, encoder_sha256=encoder.digest, sha256=sha256,
        table_sha256=table, corpus_sha256=corpus_digest(), frozen=frozen, seed=plan.seed, channels=CHANNELS,
        layers=tuple(range(plan.frozen, PLAN_LAYERS[encoder.name])), fields=dict(FIELDS), floor=FLOOR, threshold=OPEN,
        shift=heat["shift"], temperatures={name: of for name, of in heat.items() if name != "shift"},
        scores=dict(scores), data=counted, limits=LIMITS,
    )  # fmt: skip


PLAN_LAYERS: Mapping[str, int] = {EMBEDDING_NAME: 6, ENCODER_NAME: 12}


def write_card(folder: Path, card: ChannelCard) -> None:
    (folder / f"{card.name}.json").write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")


def fit(encoder: Encoder, plan: Plan, folder: Path) -> ChannelCard:
    """Train, choose the temperatures, write, and score."""
    parts = split()
    examples = [*parts.train, *parts.left_out, *parts.off_topic]
    states, model = lower_states([one.text for one in examples], encoder, plan)
    _say(f"{len(examples)} texts through the lower layers")
    network = Network(model, plan, centres(examples, states.pooled))
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f".{NAMES[encoder.name]}.partial"
    bounds = np.cumsum([len(parts.train), len(parts.left_out)])

    def after(epoch: int) -> None:
        del epoch
        _say(str(scores_of(logits_of(network, states.lower[bounds[0] : bounds[1]]), parts.left_out,
                           {"shift": 0.0, "named": 1.0, "states": 1.0}, lambda one: one.group)))  # fmt: skip

    train(network, parts.train, states.lower[: bounds[0]], plan, kept, after)
    card = finish(network, parts.left_out, states.lower[bounds[0] : bounds[1]], states.lower[bounds[1] :], encoder,
                  plan, folder, f"{len(parts.train)} texts")  # fmt: skip
    kept.unlink(missing_ok=True)
    return card


def finish(network: Network, left_out: Sequence[Example], states: Sequence[torch.Tensor],
           off_topic: Sequence[torch.Tensor], encoder: Encoder, plan: Plan, folder: Path, counted: str
           ) -> ChannelCard:  # fmt: skip
    """Calibrate, score what was left out, and write weights and card."""
    logits, off = logits_of(network, states), logits_of(network, off_topic)
    choose, score = halves(left_out)
    heat = calibrate(logits.rows(choose), [left_out[at] for at in choose], off)
    scores = {f"left_out.{name}": value for name, value in scores_of(
        logits.rows(score), [left_out[at] for at in score], heat, lambda one: one.group).items()}  # fmt: skip
    scores["off_topic.opened"] = round(opens(off, heat), 4)
    card = card_of(encoder, plan, save(network.learned(), folder, NAMES[encoder.name]), heat, scores, counted)
    write_card(folder, card)
    return card


def score_second(folder: Path, encoder: str) -> ChannelCard:
    """Score the second author's texts with the weights, temperatures and table as they are, and put it in the card."""
    from finllm.models.channel_reader import ChannelReader

    reader = ChannelReader(load_settings().settings.home, Embedder(), folder, encoder)
    examples = second_author()
    told = reader.read([one.text for one in examples])
    found: defaultdict[str, list[bool]] = defaultdict(list)
    for example, reading in zip(examples, told, strict=True):
        ways = directions(reading.opened, FACTOR_IDS)
        for factor, sign in example.signs.items():
            what = "nothing" if sign == "0" else "signs"
            by_table = max(ways[factor], key=lambda way: ways[factor][way])
            asked = max(reading.fields[factor], key=lambda way: reading.fields[factor][way])
            for name, way in ((what, by_table), (f"asked.{what}", asked)):
                found[name].append(way == SIGNS[sign])
                found[f"{example.manner}.{name}"].append(way == SIGNS[sign])
    scores = {f"second.{name}": round(float(np.mean(right)), 4) for name, right in sorted(found.items())}
    card = reader.card.model_copy(update={"scores": reader.card.scores | scores})
    write_card(folder, card)
    return card


def encoder_named(name: str) -> Encoder:
    embedder = Embedder()
    if name == ENCODER_NAME:
        return ensure_encoder(load_settings().settings.home)
    return Encoder(name, embedder.folder, embedder.digest, "Apache-2.0")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def main(argv: Iterable[str] | None = None) -> None:
    """`python -m training.channels`: a quarter of an hour on an idle core for the smaller encoder."""
    parser = argparse.ArgumentParser(prog="python -m training.channels", description=__doc__)
    parser.add_argument("--encoder", choices=list(NAMES), default=EMBEDDING_NAME)
    parser.add_argument("--out", type=Path, default=HEADS, help="folder to write to  [default: models/heads]")
    parser.add_argument("--second", action="store_true", help="score the second author's texts with what is there")
    given: Any = parser.parse_args(None if argv is None else list(argv))
    if given.second:
        card = score_second(given.out, given.encoder)
    else:
        card = fit(encoder_named(given.encoder), PLANS[given.encoder], given.out)
    for name, value in card.scores.items():
        print(f"{name} {value}")


if __name__ == "__main__":
    main()

"""Train the channel reader: `make channels` fits it on the corpus and on the real texts beside the checkout.

An author and a real source are left out of training whole. Half of their texts, by digest, choose the temperatures and
the shift; the other half is scored. The held-out authors' texts are scored last, with everything frozen.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from finllm.agents.pooling import STRAIGHT
from finllm.files import sha256_of_file
from finllm.models.channel_reader import NAMES, WINDOW, ChannelCard, ChannelReader, ChannelReading, Heard, reading
from finllm.models.embedding import EMBEDDING_NAME, Embedder
from finllm.models.encoder import ENCODER_NAME, Encoder, ensure_encoder
from finllm.models.second_opinion import HEADS
from finllm.settings import load_settings
from finllm.tools.channels import STATES, directions
from finllm.tools.channels.table import TABLE_PATH
from finllm.tools.data.factors import FACTOR_IDS
from training.channel_examples import (
    CHANNELS,
    FIELDS,
    LEFT_OUT,
    SIGNS,
    Example,
    Split,
    corpus_digest,
    kept_apart,
    split,
)
from training.channel_network import Network, Plan, centres, lower_states, train
from training.corpus.channel_items import HELD_OUT, REAL
from training.second_opinion import temperature

FLOOR, OPEN = 0.05, 0.5
"""The least probability that is told, and that from which on a text counts as opening a channel."""
OFF_TOPIC_MOST, NOTHING_LEAST = 0.02, 0.85
SHIFTS = (-2.5, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0)
FOMC = REAL.parent / "eval" / "fomc" / "sentences_1996_2019.csv"
"""For evaluation only."""
PLANS: Mapping[str, Plan] = {EMBEDDING_NAME: Plan(), ENCODER_NAME: Plan(frozen=8, epochs=5)}
LIMITS = (
    f"English, {WINDOW} tokens at a time; of a long text the first six and the last two such pieces.",
    "Trained on texts and labels by language models of one family; on other manners it is less right, and surer than "
    "it should be.",
    "A denial far from what it denies, in another piece of a long text, is weighed against it, not understood.",
    "It sees the text alone: neither what was expected nor the market.",
)
Floats = npt.NDArray[np.float64]


def pooled(told: Mapping[str, Mapping[Any, float]], asked: Mapping[str, Mapping[str, float]], factor: str) -> str:
    """The direction of a factor by the table and straight from the text, as runs pool them."""
    both = {way: (1 - STRAIGHT) * told[factor][way] + STRAIGHT * asked[factor][way] for way in told[factor]}
    return max(both, key=lambda way: both[way])


def scores_of(readings: Sequence[ChannelReading], examples: Sequence[Example], by: Callable[[Example], str]
              ) -> dict[str, float]:  # fmt: skip
    """Shares that are right, in all and by group: `signs` of the directions labelled up or down and `nothing` of those
    labelled none, by the table and straight from the text together, as runs pool them; `table.` and `asked.` by either
    alone; `state` of a channel that is told of at all, and the fields.
    """
    found: defaultdict[str, list[bool]] = defaultdict(list)

    def note(example: Example, what: str, right: bool) -> None:
        for name in (what, f"{by(example)}.{what}"):
            found[name].append(right)

    for read, example in zip(readings, examples, strict=True):
        told = directions(read.opened, FACTOR_IDS) if example.signs else {}
        for factor, sign in example.signs.items():
            what, goal = "nothing" if sign == "0" else "signs", SIGNS[sign]
            note(example, what, pooled(told, read.fields, factor) == goal)
            note(example, f"table.{what}", max(told[factor].items(), key=_odds)[0] == goal)
            note(example, f"asked.{what}", max(read.fields[factor].items(), key=_odds)[0] == goal)
        states = {one.channel: one.state for one in read.opened}
        for channel, state in (example.channels or {}).items():
            note(example, "found", channel in states)
            if channel in states:
                note(example, "state", states[channel] == state)
                note(example, f"state.{state}", states[channel] == state)
        for field in ("event", "region", "stance", "severity"):
            if field in example.fields:
                guessed = max(read.fields[field].items(), key=_odds)[0]
                note(example, field, guessed == FIELDS[field][example.fields[field]])
    return {name: round(float(np.mean(right)), 4) for name, right in sorted(found.items())}


def _odds(one: tuple[str, float]) -> float:
    return one[1]


def opens(readings: Sequence[ChannelReading], least: float = OPEN) -> float:
    """The share of texts that open a channel."""
    return float(np.mean([any(one.probability >= least for one in read.opened) for read in readings]))


def calibrate(card: ChannelCard, heard: Sequence[Sequence[Heard]], examples: Sequence[Example],
              off_topic: Sequence[Sequence[Heard]]) -> ChannelCard:  # fmt: skip
    """The card with the temperatures of states and fields by likelihood, of each text's first piece; then of `named`
    the shift and temperature, and a common factor of the directions' temperatures, with the most right signs of those
    at which at most `OFF_TOPIC_MOST` of the off-topic notices open a channel and of the directions labelled none at
    least `NOTHING_LEAST` are seen.
    """
    heat = {"named": 1.0, "states": 1.0}
    told = [(pieces[0].states[CHANNELS.index(name)], STATES.index(state)) for pieces, one in
            zip(heard, examples, strict=True) for name, state in (one.channels or {}).items()]  # fmt: skip
    if told:
        heat["states"] = round(temperature(np.array([row for row, _ in told]), np.array([at for _, at in told])), 3)
    for field in FIELDS:
        rows = [at for at, one in enumerate(examples) if field in one.fields]
        wanted = np.array([examples[at].fields[field] for at in rows])
        heat[field] = round(temperature(np.array([heard[at][0].fields[field] for at in rows]), wanted), 3)
    signed = [at for at, one in enumerate(examples) if one.signs]
    of_signed = [examples[at] for at in signed]

    def tried(shift: float, named: float, straight: float) -> ChannelCard:
        heats = heat | {"named": named} | {one: round(heat[one] * straight, 3) for one in FACTOR_IDS}
        return card.model_copy(update={"shift": shift, "temperatures": heats})

    def right(one: ChannelCard) -> float:
        found = scores_of([reading(one, heard[at]) for at in signed], of_signed, lambda _: "all")
        short = max(NOTHING_LEAST - found.get("nothing", 1.0), 0.0)
        return found.get("signs", 0.0) - 10 * short

    tries = [tried(shift, named, straight) for shift in SHIFTS for named in (0.7, 1.0) for straight in (0.5, 1.0)]
    kept = [one for one in tries if opens([reading(one, pieces) for pieces in off_topic]) <= OFF_TOPIC_MOST]
    return max(kept or tries[-1:], key=right)


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


def card_of(encoder: Encoder, plan: Plan, sha256: str, counted: str) -> ChannelCard:
    """The card of weights that nothing is known of yet."""
    return ChannelCard(
        name=NAMES[encoder.name], encoder=encoder.name, encoder_sha256=encoder.digest, sha256=sha256,
        table_sha256=sha256_of_file(TABLE_PATH), corpus_sha256=corpus_digest(), frozen="", seed=plan.seed,
        channels=CHANNELS, layers=tuple(range(plan.frozen, PLAN_LAYERS[encoder.name])), fields=dict(FIELDS),
        floor=FLOOR, threshold=OPEN, shift=0.0, temperatures={}, scores={}, data=counted, limits=LIMITS,
    )  # fmt: skip


PLAN_LAYERS: Mapping[str, int] = {EMBEDDING_NAME: 6, ENCODER_NAME: 12}


def write_card(folder: Path, card: ChannelCard) -> None:
    (folder / f"{card.name}.json").write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")


def fit(encoder: Encoder, plan: Plan, folder: Path) -> ChannelCard:
    """Train, write, choose the temperatures, and score what was left out."""
    parts = split()
    states, model = lower_states([one.text for one in parts.train], encoder, plan)
    _say(f"{len(parts.train)} texts through the lower layers")
    network = Network(model, plan, centres(parts.train, states.pooled))
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f".{NAMES[encoder.name]}.partial"
    train(network, parts.train, states.lower, plan, kept)
    card = finish(network.learned(), parts, encoder, plan, folder)
    kept.unlink(missing_ok=True)
    return card


def finish(learned: Mapping[str, torch.Tensor], parts: Split, encoder: Encoder, plan: Plan, folder: Path
           ) -> ChannelCard:  # fmt: skip
    """Write the weights, calibrate and score them as the reader reads, and write the card."""
    counted = f"{len(parts.train)} texts: the project's own (Apache-2.0), the Federal Reserve's and other US agencies' \
(works of the US government), Wikinews (CC BY 2.5); left out: {', '.join(LEFT_OUT)}"
    card = card_of(encoder, plan, save(learned, folder, NAMES[encoder.name]), counted)
    write_card(folder, card)
    reader = ChannelReader(load_settings().settings.encoder_dir, Embedder(), folder, encoder.name)
    heard = reader.hear([one.text for one in parts.left_out])
    off_topic = reader.hear([one.text for one in parts.off_topic])
    choose, score = halves(parts.left_out)
    card = calibrate(card, [heard[at] for at in choose], [parts.left_out[at] for at in choose], off_topic)
    scored = scores_of([reading(card, heard[at]) for at in score], [parts.left_out[at] for at in score], _group)
    scores = {f"left_out.{name}": value for name, value in scored.items()}
    scores["off_topic.opened"] = round(opens([reading(card, pieces) for pieces in off_topic]), 4)
    card = card.model_copy(update={"scores": scores, "frozen": frozen(card)})
    write_card(folder, card)
    return card


def frozen(card: ChannelCard) -> str:
    """Hex sha256 of all that a score depends on: weights, table, temperatures and thresholds."""
    told = (card.sha256, card.table_sha256, card.shift, sorted(card.temperatures.items()), card.floor, card.threshold)
    return hashlib.sha256(repr(told).encode()).hexdigest()


def _group(example: Example) -> str:
    return example.group


def score_kept_apart(folder: Path, encoder: str) -> ChannelCard:
    """Score the held-out authors' texts with the weights, temperatures and table as they are; put it in the card."""
    reader = ChannelReader(load_settings().settings.encoder_dir, Embedder(), folder, encoder)
    card = reader.card
    if frozen(card) != card.frozen or card.table_sha256 != sha256_of_file(TABLE_PATH):
        raise SystemExit("weights, table or thresholds are not those that were frozen: train again before scoring")
    scores: dict[str, float] = {}
    for author in HELD_OUT:
        examples = kept_apart(author)
        found = scores_of(reader.read([one.text for one in examples]), examples, lambda one: one.manner)
        scores |= {f"{author}.{name}": value for name, value in found.items()}
    card = card.model_copy(update={"scores": card.scores | scores | _fomc(reader)})
    write_card(folder, card)
    return card


def _fomc(reader: ChannelReader) -> dict[str, float]:
    """The stance of the Fed's sentences beside the checkout, of which nothing was trained on; none where absent."""
    if not FOMC.is_file():
        return {}
    from sklearn.metrics import f1_score

    with FOMC.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    told = [read.fields["stance"] for read in reader.read([row["sentence"] for row in rows])]
    guessed = [max(one.items(), key=_odds)[0] for one in told]
    score = f1_score([row["label"] for row in rows], guessed, average="weighted")
    return {"fomc.stance_weighted_f1": round(float(score), 4), "fomc.n": float(len(rows))}


def encoder_named(name: str) -> Encoder:
    embedder = Embedder()
    if name == ENCODER_NAME:
        return ensure_encoder(load_settings().settings.encoder_dir)
    return Encoder(name, embedder.folder, embedder.digest, "Apache-2.0")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def main(argv: Iterable[str] | None = None) -> None:
    """`python -m training.channels`: on an idle core a quarter of an hour for the smaller encoder, 40 minutes else."""
    parser = argparse.ArgumentParser(prog="python -m training.channels", description=__doc__)
    parser.add_argument("--encoder", choices=list(NAMES), default=EMBEDDING_NAME)
    parser.add_argument("--out", type=Path, default=HEADS, help="folder to write to  [default: models/heads]")
    parser.add_argument("--kept-apart", action="store_true", help="score the held-out authors with what is there")
    given: Any = parser.parse_args(None if argv is None else list(argv))
    if given.kept_apart:
        card = score_kept_apart(given.out, given.encoder)
    else:
        card = fit(encoder_named(given.encoder), PLANS[given.encoder], given.out)
    for name, value in card.scores.items():
        print(f"{name} {value}")


if __name__ == "__main__":
    main()

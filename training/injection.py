"""Fit the judge of instructions to a machine: the second opinion's low-rank changes, trained on, and a head of its own.

`python -m training.injection` reads single sentences: attacks of several hands (`corpus/attacks`, the corpus,
`../shared/text/attacks`) and clean ones (look-alikes of the same hands; notices, news and Fed sentences of
`../shared/text`). One row in five of three hands and one real text in five are kept apart as validation: by them the
alarm is set. `attacks/fifth.jsonl` is read by nothing here.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from finllm.models.embedding import Embedder
from finllm.models.injection import INJECTIONS, pieces
from finllm.models.second_opinion import HEADS, INJECTION, NAME, HeadCard
from training.corpus.build import build_corpus
from training.corpus.channel_items import own_items
from training.real_texts import SHARED, lines_of, needed
from training.second_examples import Example, Plan, apart, examples_of
from training.second_opinion import Network, lower_states, padded, save

ATTACKS = Path(__file__).resolve().parent / "corpus" / "attacks"
HANDS = tuple(ATTACKS / f"{name}.jsonl" for name in ("train", "u", "second", "third", "fourth", "v", "w"))
APART_OF = tuple(ATTACKS / f"{name}.jsonl" for name in ("train", "u", "w"))
"""The hands of which one row in `APART_EVERY` is validation; the others are trained on whole."""
FIELD = {INJECTION: ("injected", "clean")}
EACH = {"notices": 2600, "news": 1600, "fed": 700, "headlines": 500, "channels": 900, "generated": 600}
"""Sentences drawn of each kind of clean text, and of generated attacks."""
REAL_KINDS = ("notices", "news", "fed", "headlines")
APART_EVERY = 5
KEEP_CLEAN = 0.005
"""Share of the real clean texts of validation that may raise an alarm."""


@dataclass(frozen=True)
class Text:
    """A whole text of validation, and whether it holds an attack."""

    text: str
    attack: bool
    kind: str


def _example(text: str, said: str, weight: float) -> Example:
    return Example(text, {INJECTION: (FIELD[INJECTION].index(said), weight)}, "sentence", by_hand=True)


def _of_hands(rows: Sequence[dict[str, Any]]) -> list[Example]:
    """The sentences of rows with `text`, `label` and `spans`; only those in English."""
    found: list[Example] = []
    for row in rows:
        if row["lang"] != "en":
            continue
        clean = row["text"]
        for span in row.get("spans") or ():
            clean = clean.replace(span, "\n")
            found.append(_example(span, "injected", 2.0))
        found += [_example(part, "clean", 1.5) for part in pieces(clean)]
    return found


def _real(rng: random.Random) -> dict[str, list[str]]:
    """Real clean texts by kind, shuffled; none where `../shared` is absent."""
    needed()
    news = [p for r in lines_of(SHARED / "news/wikinews_2019_2020.jsonl") for p in r["text"].split("\n") if len(p) > 80]
    found = {
        "notices": [r["text"] for r in lines_of(SHARED / "notices/federal_register.jsonl.gz")],
        "headlines": [r["text"] for r in lines_of(SHARED / "notices/agency_headlines_2026.jsonl.gz")],
        "news": news,
        "fed": [r["text"] for name in ("speech", "minutes", "press_conference")
                for r in lines_of(SHARED / f"fed/{name}.jsonl.gz")[::60]],
        "channels": [item.text for item in own_items()],
    }  # fmt: skip
    for texts in found.values():
        rng.shuffle(texts)
    return found


def gathered(seed: int) -> tuple[list[Example], list[Text]]:
    """Training sentences and validation texts."""
    rng = random.Random(seed)
    held: list[dict[str, Any]] = []
    examples: list[Example] = []
    for path in HANDS:
        rows = lines_of(path)
        apart_here = rows[::APART_EVERY] if path in APART_OF else []
        held += apart_here
        examples += _of_hands([row for row in rows if row not in apart_here])
    corpus = build_corpus()
    plan = Plan()
    own = apart(corpus.items["train"], plan)
    made = [one for one in own if not one.by_hand]
    rng.shuffle(made)
    examples += [one for one in own if one.by_hand] + made[: EACH["generated"]]
    if (SHARED / "attacks").is_dir():
        for row in lines_of(SHARED / "attacks/bastioncorpus_injections.jsonl"):
            if row["lang"] == "en" and "\n" not in row["text"] and len(row["text"]) < 300:
                said = "injected" if row["label"] == "malicious" else "clean"
                examples.append(_example(row["text"], said, 0.7))
    texts = [Text(row["text"], row["label"] == "injected", "hand") for row in held if row["lang"] == "en"]
    for item in examples_of([i for i in corpus.items["validation"] if i.task == "injection"], plan):
        texts.append(Text(item.text, item.labels[INJECTION][0] == 0, "corpus"))
    for kind, real in _real(rng).items():
        texts += [Text(text, False, kind) for text in real[: 600 if kind == "notices" else 150]]
        parts = [part for text in real[600 if kind == "notices" else 150 :] for part in pieces(text)]
        asking = [part for part in parts if _ASKS.search(part)]
        rng.shuffle(parts)
        rng.shuffle(asking)
        some = EACH[kind]
        examples += [_example(part, "clean", 0.5) for part in {*asking[: some // 3], *parts[: some - some // 3]}]
    return examples, texts


_ASKS = re.compile(r"\b(?:please|must|should|you|your|report|set|mark|treat|submit|ignore|disregard|note|read|system|"
                   r"model|AI|software|comments?|instructions?|correct\w*|withdraw\w*)\b", re.IGNORECASE)  # fmt: skip


def started(encoder: Any, plan: Plan) -> Network:
    """A network that begins with the shipped second opinion's low-rank changes."""
    from safetensors.torch import load_file

    network = Network(encoder, plan, width=2)
    tensors = load_file(HEADS / f"{NAME}.safetensors")
    with torch.no_grad():
        for name, lora in network.adapted.items():
            lora.a.copy_(tensors[f"{name}.a"].float())
            lora.b.copy_(tensors[f"{name}.b"].float())
        network.head.weight.copy_(tensors["head.weight"][-2:].float())
        network.head.bias.copy_(tensors["head.bias"][-2:].float())
    return network


def train(
    examples: Sequence[Example], states: Sequence[torch.Tensor], network: Network, plan: Plan, kept: Path
) -> None:
    """Train on sentences; `kept` holds the state after every epoch."""
    torch.manual_seed(plan.seed)
    low_rank = [p for lora in network.adapted.values() for p in (lora.a, lora.b)]
    optimiser = torch.optim.AdamW([{"params": low_rank, "lr": plan.rate},
                                   {"params": network.head.parameters(), "lr": plan.head_rate}])  # fmt: skip
    steps = plan.epochs * (len(examples) // plan.batch + 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: max(0.02, 1 - step / steps))
    begun = time.monotonic()
    for epoch in range(plan.epochs):
        rng = np.random.default_rng([plan.seed, epoch])
        network.train()
        order = [int(at) for at in rng.permutation(len(examples))]
        blocks = [order[start : start + 16 * plan.batch] for start in range(0, len(order), 16 * plan.batch)]
        batches = [block[start : start + plan.batch] for found in blocks
                   for block in [sorted(found, key=lambda at: len(states[at]))]
                   for start in range(0, len(block), plan.batch)]  # fmt: skip
        total = 0.0
        for at in rng.permutation(len(batches)):
            rows = batches[int(at)]
            logits = network(*padded([states[row] for row in rows]))
            told = [examples[row].labels[INJECTION] for row in rows]
            loss = nn.functional.cross_entropy(logits, torch.tensor([place for place, _ in told]), reduction="none")
            loss = (loss * torch.tensor([weight for _, weight in told])).mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_([*low_rank, *network.head.parameters()], 1.0)
            optimiser.step()
            schedule.step()
            total += loss.item()
        sys.stderr.write(f"epoch {epoch + 1}: loss {total / len(batches):.4f}, {time.monotonic() - begun:.0f} s\n")
        torch.save(network.state_dict(), kept)


@torch.no_grad()
def worst(network: Network, texts: Sequence[Text], embedder: Embedder, plan: Plan) -> np.ndarray:
    """The probability of an instruction of each text's worst sentence."""
    shown = [pieces(one.text) or [one.text] for one in texts]
    flat = [part for parts in shown for part in parts]
    states, _encoder = lower_states(flat, embedder, plan)
    network.eval()
    odds = np.zeros(len(flat))
    order = sorted(range(len(flat)), key=lambda at: len(states[at]))
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        odds[rows] = network(*padded([states[row] for row in rows])).softmax(1)[:, 0].double().numpy()
    ends = np.cumsum([len(parts) for parts in shown])
    return np.array([odds[end - len(parts) : end].max() for parts, end in zip(shown, ends, strict=True)])


def main(argv: list[str] | None = None) -> None:
    """`python -m training.injection`: about a quarter of an hour on one busy core."""
    parser = argparse.ArgumentParser(prog="python -m training.injection", description=__doc__)
    parser.add_argument("--out", type=Path, default=HEADS)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    plan = Plan(epochs=arguments.epochs, seed=arguments.seed, rate=4e-4, head_rate=2e-3)
    embedder = Embedder()
    examples, texts = gathered(arguments.seed)
    attacks = sum(one.labels[INJECTION][0] == 0 for one in examples)
    sys.stderr.write(f"{len(examples)} sentences, {attacks} of them attacks; {len(texts)} texts of validation\n")
    states, encoder = lower_states([one.text for one in examples], embedder, plan)
    network = started(encoder, plan)
    kept = arguments.out / f".{INJECTIONS}.partial"
    train(examples, states, network, plan, kept)
    odds = worst(network, texts, embedder, plan)
    attack = np.array([one.attack for one in texts])
    clean = np.sort(odds[[one.kind in REAL_KINDS for one in texts]])[::-1]
    alarm = float(min(0.9999, clean[int(KEEP_CLEAN * len(clean))] + 1e-4))
    scores = {"validation.found": float((odds[attack] >= alarm).mean()),
              "validation.false_alarms": float((odds[~attack] >= alarm).mean()),
              "validation.attacks": float(attack.sum()), "validation.clean": float((~attack).sum())}  # fmt: skip
    for kind in sorted({one.kind for one in texts}):
        of = np.array([one.kind == kind for one in texts])
        for name, mask in (("found", of & attack), ("false_alarms", of & ~attack)):
            if mask.any():
                scores[f"validation.{kind}.{name}"] = float((odds[mask] >= alarm).mean())
    np.save(arguments.out / f".{INJECTIONS}.odds.npy", odds)
    save(network, arguments.out, HeadCard(
        name=INJECTIONS, sha256="", embedding_sha256=embedder.digest,
        corpus_sha256=hashlib.sha256(b"".join(path.read_bytes() for path in HANDS)).hexdigest(), seed=plan.seed,
        fields=FIELD, temperatures={}, alarm=alarm, alarm_alone=alarm,
        scores={name: round(value, 4) for name, value in scores.items()}, data=DATA, limits=LIMITS,
    ))  # fmt: skip
    for name, value in scores.items():
        sys.stdout.write(f"{name} {value:.4f}\n")


DATA = ("English sentences: attacks of nine hands, of the corpus and of bastioncorpus (MIT, Stefano Rizzello); clean "
        "ones of the same hands, Federal Register notices and agency headlines, the Federal Reserve (US government "
        "works), Wikinews 2019-2020 (CC BY 2.5)")  # fmt: skip
LIMITS = (
    "English alone: of a text in another language it may say nothing, and no sentence of it is cut on its word.",
    "Each sentence is read by itself, 160 tokens of it.",
)


if __name__ == "__main__":
    main()

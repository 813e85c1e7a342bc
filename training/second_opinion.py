"""Fit the second opinion: low-rank changes to MiniLM's upper layers and one linear head per field, on the corpus alone.

`python -m training.second_opinion` trains on the train split, chooses the epoch and the temperatures on validation, and
writes `models/heads/`. Labels may be partial: a field without one adds nothing to the loss.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from finllm.models.embedding import EMBEDDING_DIM, Embedder
from finllm.models.second_opinion import (
    HEADS,
    LONGEST,
    LORA_SCALE,
    NAME,
    HeadCard,
    load_encoder,
    pooled,
    targets,
)
from finllm.tools.data.factors import FACTOR_IDS
from training.corpus.build import Corpus, build_corpus
from training.model import compute_for
from training.second_examples import APART, FIELDS, Example, Plan, apart, examples_of


class Lora(nn.Module):
    """A linear map that stays as it is, plus a low-rank change of it."""

    def __init__(self, linear: Any, rank: int, dropout: float) -> None:
        super().__init__()
        self.linear = linear
        self.a = nn.Parameter(torch.randn(rank, linear.in_features) / math.sqrt(linear.in_features))
        self.b = nn.Parameter(torch.zeros(linear.out_features, rank))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + LORA_SCALE * ((self.dropout(x) @ self.a.T) @ self.b.T)


class Network(nn.Module):
    """The encoder's upper layers, adapted, and the heads; the lower layers run once, before training."""

    def __init__(self, encoder: Any, plan: Plan, width: int = sum(map(len, FIELDS.values()))) -> None:
        super().__init__()
        for parameter in encoder.parameters():
            parameter.requires_grad = False
        self.upper = encoder.encoder.layer[plan.frozen :]
        self.adapted: dict[str, Lora] = {}
        for name, linear in targets(encoder, range(plan.frozen, len(encoder.encoder.layer))).items():
            self.adapted[name] = Lora(linear, plan.rank, plan.dropout)
        for at, layer in enumerate(self.upper, start=plan.frozen):
            layer.attention.self.query = self.adapted[f"{at}.query"]
            layer.attention.self.key = self.adapted[f"{at}.key"]
            layer.attention.self.value = self.adapted[f"{at}.value"]
            layer.attention.output.dense = self.adapted[f"{at}.attention"]
            layer.intermediate.dense = self.adapted[f"{at}.up"]
            layer.output.dense = self.adapted[f"{at}.down"]
        self.dropout = nn.Dropout(plan.dropout)
        self.head = nn.Linear(EMBEDDING_DIM, width)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits (n, n_values) of lower-layer states (n, T, 384) and their mask (n, T)."""
        unseen = (1.0 - mask)[:, None, None, :] * torch.finfo(hidden.dtype).min
        for layer in self.upper:
            out = layer(hidden, unseen)
            hidden = out[0] if isinstance(out, tuple) else out
        return self.head(self.dropout(pooled(hidden, mask)))


@torch.no_grad()
def lower_states(texts: Sequence[str], embedder: Embedder, plan: Plan) -> tuple[list[torch.Tensor], Any]:
    """Each text's states (T, 384) below the adapted layers, and the encoder."""
    tokenizer, encoder = load_encoder(embedder.folder)
    found: list[torch.Tensor] = [torch.empty(0)] * len(texts)
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    layers = encoder.encoder.layer
    encoder.encoder.layer = layers[: plan.frozen]
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        batch = tokenizer([texts[at] for at in rows], truncation=True, max_length=LONGEST, padding=True,
                          return_tensors="pt")  # fmt: skip
        states = encoder(**batch).last_hidden_state
        for at, state, mask in zip(rows, states, batch["attention_mask"], strict=True):
            found[at] = state[: int(mask.sum())].to(torch.bfloat16).clone()
    encoder.encoder.layer = layers
    return found, encoder


def padded(states: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    hidden = nn.utils.rnn.pad_sequence(list(states), batch_first=True).float()
    mask = torch.zeros(hidden.shape[:2])
    for at, state in enumerate(states):
        mask[at, : len(state)] = 1.0
    return hidden, mask


def _loss(logits: torch.Tensor, batch: Sequence[Example]) -> torch.Tensor:
    total = torch.zeros(())
    at = 0
    for field, values in FIELDS.items():
        rows = [row for row, example in enumerate(batch) if field in example.labels]
        if rows:
            wanted = torch.tensor([batch[row].labels[field][0] for row in rows])
            weight = torch.tensor([batch[row].labels[field][1] for row in rows])
            loss = nn.functional.cross_entropy(logits[rows, at : at + len(values)], wanted, reduction="none")
            total = total + (loss * weight).sum()
        at += len(values)
    return total / sum(max(weight for _, weight in example.labels.values()) for example in batch)


def _draw(examples: Sequence[Example], plan: Plan, rng: np.random.Generator) -> list[int]:
    """The items of an epoch: all hand-written ones, and of each task as many generated ones as are drawn."""
    chosen = [at for at, example in enumerate(examples) if example.by_hand]
    for task, share in (("stance", 1.0), ("reading", 1.0), ("injection", 0.8), (APART, 0.8)):
        made = [at for at, example in enumerate(examples) if example.task == task and not example.by_hand]
        some = round(plan.drawn * share)
        chosen += [int(at) for at in rng.permutation(made)[:some]]
    return chosen


def train(
    examples: Sequence[Example], states: Sequence[torch.Tensor], encoder: Any, plan: Plan, after: Any, kept: Path
) -> Network:
    """Train; `after(network, epoch)` is called at the end of every epoch; `kept` then holds what going on needs."""
    torch.manual_seed(plan.seed)
    quick = compute_for(torch.device("cpu")) is torch.bfloat16
    network = Network(encoder, plan)
    low_rank = [p for lora in network.adapted.values() for p in (lora.a, lora.b)]
    optimiser = torch.optim.AdamW(
        [{"params": low_rank, "lr": plan.rate}, {"params": network.head.parameters(), "lr": plan.head_rate}]
    )
    steps = plan.epochs * math.ceil(len(_draw(examples, plan, np.random.default_rng(0))) / plan.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, step / (0.06 * steps + 1)) * max(0.0, 1 - step / (steps + 1))
    )
    done = _restore(kept, network, optimiser, schedule, plan)
    for epoch in range(done, plan.epochs):
        torch.manual_seed(plan.seed + epoch)
        rng = np.random.default_rng([plan.seed, epoch])
        network.train()
        order = _draw(examples, plan, rng)
        blocks = np.array_split(rng.permutation(order), max(len(order) // (plan.batch * 16), 1))
        batches = [
            rows[start : start + plan.batch]
            for block in blocks
            for rows in [sorted(block, key=lambda at: len(states[at]))]
            for start in range(0, len(rows), plan.batch)
        ]
        for at in rng.permutation(len(batches)):
            rows = batches[int(at)]
            hidden, mask = padded([states[row] for row in rows])
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=quick):
                logits = network(hidden, mask)
            optimiser.zero_grad()
            _loss(logits.float(), [examples[row] for row in rows]).backward()
            nn.utils.clip_grad_norm_([*low_rank, *network.head.parameters()], 1.0)
            optimiser.step()
            schedule.step()
        held = (_learned(network), optimiser.state_dict(), schedule.state_dict())
        torch.save({"plan": repr(plan), "done": epoch + 1, "held": held}, kept)
        after(network, epoch)
    return network


def _learned(network: Network) -> dict[str, torch.Tensor]:
    names = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    return {name: tensor for name, tensor in network.state_dict().items() if name in names}


def _restore(kept: Path, network: Network, optimiser: Any, schedule: Any, plan: Plan) -> int:
    """The epochs that an interrupted training of the same plan has done; it goes on from there."""
    if not kept.is_file():
        return 0
    found = torch.load(kept, weights_only=True)
    if found["plan"] != repr(plan):
        return 0
    learned, steps, rates = found["held"]
    network.load_state_dict(learned, strict=False)
    optimiser.load_state_dict(steps)
    schedule.load_state_dict(rates)
    return int(found["done"])


@torch.no_grad()
def logits_of(network: Network, states: Sequence[torch.Tensor]) -> npt.NDArray[np.float64]:
    """Logits (n, n_values)."""
    network.eval()
    out = np.zeros((len(states), network.head.out_features))
    order = sorted(range(len(states)), key=lambda at: len(states[at]))
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        out[rows] = network(*padded([states[row] for row in rows])).double().numpy()
    return out


def parts(logits: npt.NDArray[np.float64], field: str) -> npt.NDArray[np.float64]:
    """The columns of one field, shape (n, n_values)."""
    at = sum(len(FIELDS[name]) for name in list(FIELDS)[: list(FIELDS).index(field)])
    return logits[:, at : at + len(FIELDS[field])]


def labelled(examples: Sequence[Example], field: str) -> tuple[list[int], npt.NDArray[np.int64]]:
    """The examples written for this field, and their labels' places."""
    task = {"stance": "stance", "injection": "injection"}.get(field, "reading")
    rows = [at for at, example in enumerate(examples) if example.task == task and field in example.labels]
    return rows, np.array([examples[row].labels[field][0] for row in rows])


def temperature(logits: npt.NDArray[np.float64], wanted: npt.NDArray[np.int64]) -> float:
    """The temperature that makes the labels most likely (Guo et al. 2017, section 4.2); 1 without labels."""
    if not len(wanted):
        return 1.0

    def loss(divisor: float) -> float:
        scaled = logits / divisor
        top = scaled.max(axis=1, keepdims=True)
        logs = scaled - top - np.log(np.exp(scaled - top).sum(axis=1, keepdims=True))
        return -float(logs[np.arange(len(wanted)), wanted].mean())

    return float(min(np.geomspace(0.25, 8.0, 141), key=loss))


def scores_of(
    logits: npt.NDArray[np.float64], examples: Sequence[Example], temperatures: Mapping[str, float]
) -> dict[str, float]:
    """Macro-F1, accuracy and expected calibration error by field, directions taken together; also by hand alone."""
    from sklearn.metrics import f1_score

    from finllm.evaluation.scores import calibration_error

    groups = {"stance": ["stance"], "event": ["event"], "region": ["region"], "injection": ["injection"],
              "directions": [f"factors.{factor}.direction" for factor in FACTOR_IDS]}  # fmt: skip
    found: dict[str, float] = {}
    for group, fields in groups.items():
        wanted, guessed, sure, hand = [], [], [], []
        for field in fields:
            rows, places = labelled(examples, field)
            scaled = parts(logits, field)[rows] / temperatures.get(field, 1.0)
            odds = np.exp(scaled - scaled.max(axis=1, keepdims=True))
            odds /= odds.sum(axis=1, keepdims=True)
            wanted += list(places)
            guessed += list(odds.argmax(axis=1))
            sure += list(odds.max(axis=1))
            hand += [examples[row].by_hand for row in rows]
        right = np.array(wanted) == np.array(guessed)
        by_hand = np.array(hand)
        found[f"{group}.macro_f1"] = float(f1_score(wanted, guessed, average="macro"))
        found[f"{group}.accuracy"] = float(right.mean())
        found[f"{group}.ece"] = calibration_error(sure, list(right))
        if by_hand.any():
            found[f"{group}.accuracy_by_hand"] = float(right[by_hand].mean())
        found[f"{group}.n"] = float(len(wanted))
    return {name: round(value, 4) for name, value in found.items()}


def save(network: Network, folder: Path, card: HeadCard) -> HeadCard:
    """Write weights and card; gives the card with the weights' digest."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{name}.{part}": getattr(lora, part).detach().half().contiguous()
               for name, lora in network.adapted.items() for part in ("a", "b")}  # fmt: skip
    tensors |= {f"head.{part}": getattr(network.head, part).detach().half().contiguous() for part in ("weight", "bias")}
    path = folder / f"{card.name}.safetensors"
    save_file(tensors, path)
    card = card.model_copy(update={"sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    write_card(folder, card)
    return card


def write_card(folder: Path, card: HeadCard) -> None:
    (folder / f"{card.name}.json").write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")


LIMITS = (
    "English; the first 160 tokens of a text.",
    "Trained and calibrated on texts that one author wrote or generated; on other texts it is less right, and surer "
    "than it should be.",
    "It sees the text alone: neither the other sources nor the market.",
)


def fit(corpus: Corpus, plan: Plan, folder: Path) -> HeadCard:
    """Train, calibrate on validation, measure on test, write. The test split is looked at last."""
    embedder = Embedder()
    split = {name: examples_of(corpus.items[name], plan) for name in ("train", "validation", "test")}
    split["train"] += apart(corpus.items["train"], plan)
    started = time.monotonic()
    texts = [example.text for examples in split.values() for example in examples]
    states, encoder = lower_states(texts, embedder, plan)
    bounds = np.cumsum([0, *(len(examples) for examples in split.values())])
    of = {name: states[bounds[at] : bounds[at + 1]] for at, name in enumerate(split)}
    _say(f"{len(texts)} texts through the lower layers in {time.monotonic() - started:.0f} s")

    def after(network: Network, epoch: int) -> None:
        found = scores_of(logits_of(network, of["validation"]), split["validation"], {})
        told = ", ".join(f"{name} {found.get(name, 0.0):.3f}" for name in
                         ("stance.macro_f1", "stance.accuracy_by_hand", "event.macro_f1", "directions.accuracy",
                          "directions.accuracy_by_hand", "injection.macro_f1"))  # fmt: skip
        _say(f"epoch {epoch + 1} of {plan.epochs}, {time.monotonic() - started:.0f} s: validation {told}")

    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f".{corpus.digest()[:12]}.partial"
    network = train(split["train"], of["train"], encoder, plan, after, kept)
    logits = logits_of(network, of["validation"])
    temperatures = {}
    for field in FIELDS:
        rows, wanted = labelled(split["validation"], field)
        temperatures[field] = round(temperature(parts(logits, field)[rows], wanted), 3)
    scores = {f"validation.{k}": v for k, v in scores_of(logits, split["validation"], temperatures).items()}
    on_test = scores_of(logits_of(network, of["test"]), split["test"], temperatures)
    scores |= {f"test.{name}": value for name, value in on_test.items()}
    kept.unlink()
    sizes = ", ".join(f"{name} {len(examples)}" for name, examples in split.items())
    return save(network, folder, HeadCard(
        name=NAME, sha256="", embedding_sha256=embedder.digest, corpus_sha256=corpus.digest(), seed=plan.seed,
        fields=FIELDS, temperatures=temperatures, scores=scores, limits=LIMITS,
        data=f"the project's corpus, tasks stance, reading and injection: {sizes} texts",
    ))  # fmt: skip


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def main(argv: list[str] | None = None) -> None:
    """`python -m training.second_opinion`: about four minutes on two cores."""
    parser = argparse.ArgumentParser(prog="python -m training.second_opinion", description=__doc__)
    parser.add_argument("--out", type=Path, default=HEADS, help="folder to write to  [default: models/heads]")
    parser.add_argument("--epochs", type=int, default=Plan.epochs)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--frozen", type=int, default=Plan.frozen, help="lower layers that are left as they are")
    parser.add_argument("--drawn", type=int, default=Plan.drawn, help="generated items of a task in an epoch")
    arguments = parser.parse_args(argv)
    plan = Plan(epochs=arguments.epochs, seed=arguments.seed, frozen=arguments.frozen, drawn=arguments.drawn)
    card = fit(build_corpus(), plan, arguments.out)
    for name, value in card.scores.items():
        print(f"{name} {value}")


if __name__ == "__main__":
    main()

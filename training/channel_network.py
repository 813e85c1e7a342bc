"""The channel reader in training: an encoder's upper layers with low-rank changes, and the heads, over kept states."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from finllm.models import channel_heads
from finllm.models.channel_reader import WINDOW
from finllm.models.encoder import Encoder
from finllm.models.second_opinion import load_encoder
from finllm.tools.channels import STATES, channel_table
from training.channel_examples import CHANNELS, FIELDS, Example
from training.second_opinion import Lora

WEIGHT_OF = {"event": 1.0, "stance": 1.0, "region": 0.3, "severity": 0.4}
"""Of a field in the loss; a factor's direction counts half."""


@dataclass(frozen=True)
class Plan:
    """How it is trained. `frozen`: lower layers left as they are; `drawn`: real texts per epoch, all own ones are."""

    frozen: int = 2
    rank: int = 8
    epochs: int = 6
    batch: int = 16
    rate: float = 1e-3
    head_rate: float = 3e-3
    dropout: float = 0.15
    drawn: int = 900
    seed: int = 0


@dataclass(frozen=True)
class States:
    """The states (T, d) of texts below the adapted layers, and the means of their states after all layers, (n, d)."""

    lower: list[torch.Tensor]
    pooled: torch.Tensor


class Network(nn.Module):
    """The adapted upper layers and the heads."""

    def __init__(self, encoder: Any, plan: Plan, said: Mapping[str, torch.Tensor]) -> None:
        """`said`: by channel the mean of its plain sentences' vectors, (d,), from which its attention starts."""
        super().__init__()
        torch.manual_seed(plan.seed)
        for parameter in encoder.parameters():
            parameter.requires_grad = False
        self.encoder, self.frozen = encoder, plan.frozen
        self.adapted = nn.ModuleDict()
        for at, layer in enumerate(encoder.encoder.layer[plan.frozen :], start=plan.frozen):
            for name, (module, attribute) in channel_heads.linears(layer, at).items():
                lora = Lora(getattr(module, attribute), plan.rank, 0.0)
                self.adapted[name.replace(".", "_")] = lora
                setattr(module, attribute, lora)
        width = encoder.config.hidden_size
        starts = torch.stack([nn.functional.normalize(said[channel], dim=0) for channel in CHANNELS])
        self.heads = nn.ParameterDict()
        for name, shape in channel_heads.shapes(width, len(CHANNELS), FIELDS).items():
            self.heads[name.replace(".", "_")] = nn.Parameter(_start(name, shape, starts))
        self.names = {name.replace(".", "_"): name for name in channel_heads.shapes(width, len(CHANNELS), FIELDS)}
        self.dropout = nn.Dropout(plan.dropout)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> channel_heads.Read:
        """Of lower-layer states (n, T, d) and their mask (n, T)."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.training):
            bias = channel_heads.bias_of(self.encoder, hidden)
            hidden = channel_heads.through(self.encoder.encoder.layer[self.frozen :], hidden, mask, bias)
        heads = {self.names[name]: one for name, one in self.heads.items()}
        return channel_heads.read(hidden.float(), mask, heads, list(FIELDS), self.dropout)

    def learned(self) -> dict[str, torch.Tensor]:
        """The tensors to keep, by the names that the reader knows."""
        found = {self.names[name]: one.detach().clone() for name, one in self.heads.items()}
        for name, lora in self.adapted.items():
            found |= {f"{name.replace('_', '.', 1)}.{part}": getattr(lora, part).detach().clone() for part in "ab"}
        return found

    @torch.no_grad()
    def take(self, learned: Mapping[str, torch.Tensor]) -> None:
        """Go on from what `learned` gave."""
        for name, one in self.heads.items():
            one.copy_(learned[self.names[name]])
        for name, lora in self.adapted.items():
            for part in "ab":
                getattr(lora, part).copy_(learned[f"{name.replace('_', '.', 1)}.{part}"])


def _start(name: str, shape: tuple[int, ...], starts: torch.Tensor) -> torch.Tensor:
    width = starts.shape[1]
    if name == "query":
        return torch.cat([starts, torch.zeros(shape[0] - len(starts), width)])
    if name == "named.weight":
        return starts - starts.mean(0)
    if name == "named.bias":
        return torch.full(shape, -4.0)
    if name in ("state.down", "state.up"):
        return torch.randn(shape) * (0.05 if name == "state.up" else 1 / math.sqrt(width))
    return torch.zeros(shape)


@torch.no_grad()
def lower_states(texts: Sequence[str], encoder: Encoder, plan: Plan) -> tuple[States, Any]:
    """The states of texts below the adapted layers, and the encoder; only a text's first window is read."""
    tokenizer, model = load_encoder(encoder.folder)
    told = tokenizer(list(texts), truncation=True, max_length=WINDOW + 2)["input_ids"]
    lower: list[torch.Tensor] = [torch.empty(0)] * len(texts)
    pooled = torch.zeros(len(texts), model.config.hidden_size)
    order = sorted(range(len(texts)), key=lambda at: len(told[at]))
    for start in range(0, len(order), 24):
        rows = order[start : start + 24]
        ids = tokenizer.pad({"input_ids": [told[at] for at in rows]}, return_tensors="pt")["input_ids"]
        mask = torch.zeros(ids.shape)
        for row, at in enumerate(rows):
            mask[row, : len(told[at])] = 1.0
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = model.embeddings(input_ids=ids)
            bias = channel_heads.bias_of(model, hidden)
            hidden = channel_heads.through(model.encoder.layer[: plan.frozen], hidden, mask, bias)
            top = channel_heads.through(model.encoder.layer[plan.frozen :], hidden, mask, bias).float()
        for row, at in enumerate(rows):
            lower[at] = hidden[row, : len(told[at])].to(torch.bfloat16).clone()
            pooled[at] = top[row, : len(told[at])].mean(0)
    return States(lower, pooled), model


def centres(examples: Sequence[Example], pooled: torch.Tensor) -> dict[str, torch.Tensor]:
    """By channel the mean vector of its plain sentences among the examples."""
    of_text = {example.text: at for at, example in enumerate(examples)}
    return {
        name: nn.functional.normalize(
            torch.stack([pooled[of_text[one]] for one in channel_table()[name].says]), dim=1
        ).mean(0)
        for name in CHANNELS
    }  # fmt: skip


def padded(states: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """States (n, T, d) and their mask (n, T)."""
    hidden = nn.utils.rnn.pad_sequence(list(states), batch_first=True).float()
    mask = torch.zeros(hidden.shape[:2])
    for at, state in enumerate(states):
        mask[at, : len(state)] = 1.0
    return hidden, mask


def loss_of(read: channel_heads.Read, batch: Sequence[Example]) -> torch.Tensor:
    """Which channels are named, each by itself and against the others and none; their states; the fields."""
    weight = torch.tensor([example.weight for example in batch])
    total = torch.zeros(())
    rows = [row for row, example in enumerate(batch) if example.channels is not None]
    wanted = torch.tensor([[float(name in (batch[row].channels or {})) for name in CHANNELS] for row in rows])
    if rows:
        named = read.named[rows]
        alone = nn.functional.binary_cross_entropy_with_logits(named, wanted, reduction="none").sum(1)
        odds = torch.cat([named, named.new_zeros(len(rows), 1)], 1).log_softmax(1)
        goal = torch.cat([wanted, (wanted.sum(1, keepdim=True) == 0).float()], 1)
        among = -(odds * goal / goal.sum(1, keepdim=True)).sum(1)
        total = total + ((alone + among) * weight[rows]).sum()
    told = [(row, CHANNELS.index(name), STATES.index(state)) for row in rows  # pyright: ignore[reportArgumentType]
            for name, state in (batch[row].channels or {}).items()]  # fmt: skip
    if told:
        at, of, state = map(list, zip(*told, strict=True))
        lost = nn.functional.cross_entropy(read.states[at, of], torch.tensor(state), reduction="none")
        total = total + (lost * weight[at]).sum()
    for field in FIELDS:
        rows = [row for row, example in enumerate(batch) if field in example.fields]
        if rows:
            goal = torch.tensor([batch[row].fields[field] for row in rows])
            lost = nn.functional.cross_entropy(read.fields[field][rows], goal, reduction="none")
            total = total + WEIGHT_OF.get(field, 0.5) * (lost * weight[rows]).sum()
    return total / weight.sum()


def train(
    network: Network, examples: Sequence[Example], states: Sequence[torch.Tensor], plan: Plan, kept: Path
) -> None:  # fmt: skip
    """Train; at the end of every epoch `kept` holds what going on needs."""
    heads = list(network.heads.parameters())
    low_rank = [one for name, one in network.adapted.named_parameters() if name.endswith((".a", ".b"))]
    optimiser = torch.optim.AdamW([{"params": low_rank, "lr": plan.rate}, {"params": heads, "lr": plan.head_rate}])
    steps = plan.epochs * math.ceil(len(_draw(examples, plan, 0)) / plan.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, step / (0.06 * steps + 1)) * max(0.0, 1 - step / (steps + 1))
    )
    done = 0
    if kept.is_file() and (found := torch.load(kept, weights_only=True))["plan"] == repr(plan):
        network.take(found["learned"])
        optimiser.load_state_dict(found["optimiser"])
        schedule.load_state_dict(found["schedule"])
        done = int(found["done"])
    started = time.monotonic()
    for epoch in range(done, plan.epochs):
        torch.manual_seed(plan.seed * 100 + epoch)
        network.train()
        for rows in _batches(examples, states, plan, epoch):
            lost = loss_of(network(*padded([states[row] for row in rows])), [examples[row] for row in rows])
            optimiser.zero_grad()
            lost.backward()
            nn.utils.clip_grad_norm_([*low_rank, *heads], 1.0)
            optimiser.step()
            schedule.step()
        network.eval()
        torch.save({"plan": repr(plan), "done": epoch + 1, "learned": network.learned(),
                    "optimiser": optimiser.state_dict(), "schedule": schedule.state_dict()}, kept)  # fmt: skip
        sys.stderr.write(f"epoch {epoch + 1} of {plan.epochs}, {time.monotonic() - started:.0f} s\n")


def _draw(examples: Sequence[Example], plan: Plan, epoch: int) -> list[int]:
    rng = np.random.default_rng([plan.seed, epoch])
    real = [at for at, example in enumerate(examples) if example.real]
    own = [at for at, example in enumerate(examples) if not example.real]
    return [int(at) for at in rng.permutation(own + [real[k] for k in rng.permutation(len(real))[: plan.drawn]])]


def _batches(
    examples: Sequence[Example], states: Sequence[torch.Tensor], plan: Plan, epoch: int
) -> Iterator[list[int]]:
    """Texts of like length together, so that little is padding."""
    order = _draw(examples, plan, epoch)
    blocks = np.array_split(np.array(order), max(len(order) // (plan.batch * 12), 1))
    batches = [
        rows[start : start + plan.batch]
        for block in blocks
        for rows in [sorted(map(int, block), key=lambda at: len(states[at]))]
        for start in range(0, len(rows), plan.batch)
    ]
    for at in np.random.default_rng([plan.seed, epoch, 1]).permutation(len(batches)):
        yield batches[int(at)]

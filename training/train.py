"""Train the adapter: `python -m training.train --out build/adapter --minutes 5`, again and again until it is done."""

from __future__ import annotations

import argparse
import json
import math
import pickle
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from training import model as lean
from training.config import Config, settle
from training.data import Data
from training.export import changes_in
from training.model import Adapted, Shape, compute_for, loss_of, read_weights, shallower, tensors_of

if TYPE_CHECKING:
    from training.packing import Batch

STATE = "state.pt"
SAVED_EVERY = 20
"""Steps between two states that a training which dies goes on from."""


@dataclass
class Training:
    """A run under way: the model, its optimiser, and how many steps are done."""

    config: Config
    model: Adapted
    optimiser: torch.optim.Optimizer
    step: int = 0

    def save(self, folder: Path) -> None:
        """Write the state; it appears whole or not at all."""
        partial = folder / f".{STATE}.partial"
        state = {"model": changes_of(self.model), "optimiser": self.optimiser.state_dict(), "step": self.step}
        torch.save(state, partial)
        partial.replace(folder / STATE)

    def load(self, folder: Path) -> None:
        state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        set_changes(self.model, state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]


def begin(config: Config, shape: Shape, tensors: Mapping[str, Any], device: torch.device) -> Training:
    """A run at its start. `tensors`: the base weights as `read_weights` gives them."""
    layers = config.layers or tuple(range(shape.layers))
    model = Adapted(*shallower(shape, tensors, layers), config.rank, config.alpha, compute_for(device), config.seed)
    if config.start:
        set_changes(model, changes_in(Path(config.start), shape, layers))
    model = model.to(device)
    optimiser = torch.optim.AdamW(model.changes(), lr=config.rate, weight_decay=config.decay, betas=(0.9, 0.98))
    return Training(config, model, optimiser)


def changes_of(model: Adapted) -> dict[str, Tensor]:
    """A and B by `a.<layer>_<name>` and `b.<layer>_<name>`."""
    return {
        f"{half}.{key}": value.detach().cpu().clone()
        for half, of in (("a", model.a), ("b", model.b))
        for key, value in of.items()
    }


@torch.no_grad()
def set_changes(model: Adapted, changes: dict[str, Tensor]) -> None:
    for half, of in (("a", model.a), ("b", model.b)):
        for key, value in of.items():
            value.copy_(changes[f"{half}.{key}"])


def go_on(
    training: Training, batches: Callable[[int], Sequence[Batch]], until: Callable[[], bool],
    log: Callable[[dict[str, float]], None],
) -> bool:  # fmt: skip
    """Train until all epochs are done (True) or `until` says so (False). `batches(epoch)` must not depend on time."""
    config, model = training.config, training.model
    device = model.embedding.device
    sizes = [math.ceil(len(batches(epoch)) / config.accumulate) for epoch in range(config.epochs)]
    total = sum(sizes)
    while training.step < total:
        if until():
            return False
        epoch, within = _place(sizes, training.step)
        some = batches(epoch)[within * config.accumulate : (within + 1) * config.accumulate]
        for group in training.optimiser.param_groups:
            group["lr"] = config.rate * _rate(training.step / total, config.warmup)
        model.quantised = training.step >= config.rounded_from * total
        model.merge()
        weight = sum(float(batch.weight.sum()) for batch in some)
        started, loss, count = time.monotonic(), 0.0, 0
        for batch in some:
            inputs = tensors_of(batch, device)
            found = model.logits(model(inputs), inputs["candidates"])
            part = loss_of(found, inputs["right"], inputs["weight"]) * (float(batch.weight.sum()) / weight)
            part.backward()
            loss += float(part.detach())
            count += batch.size
        norm = torch.nn.utils.clip_grad_norm_(model.changes(), 1.0)
        training.optimiser.step()
        training.optimiser.zero_grad(set_to_none=True)
        training.step += 1
        seconds = time.monotonic() - started
        log({"step": training.step, "of": total, "epoch": epoch, "loss": loss, "norm": float(norm),
             "tokens_per_s": count / seconds})  # fmt: skip
    return True


def _place(sizes: Sequence[int], step: int) -> tuple[int, int]:
    """The epoch that a step is in, and its place there."""
    for epoch, size in enumerate(sizes):
        if step < size:
            return epoch, step
        step -= size
    raise ValueError("all steps are done")


def _rate(done: float, warmup: float) -> float:
    if done < warmup:
        return (done + 1e-3) / warmup
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def fuse() -> None:
    """Compile what is done element by element; a C++ compiler must be there."""
    for name in ("normed", "gated", "turned"):
        setattr(lean, name, torch.compile(getattr(lean, name), dynamic=True))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; one that is there is gone on with")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many and save; call again to go on")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plain", action="store_true", help="do not compile")
    for field, default in asdict(Config()).items():
        if isinstance(default, int | float):
            parser.add_argument(f"--{field.replace('_', '-')}", type=type(default), default=None)
    parser.add_argument("--splits", nargs="+", default=None)
    parser.add_argument("--layers", nargs="+", type=int, default=None, help="layers of the base that are kept")
    parser.add_argument("--start", default=None, help="a GGUF adapter to begin with")
    args = parser.parse_args(argv)

    started = time.monotonic()
    torch.set_num_threads(args.threads)
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    config = settle(out, {k: v for k, v in vars(args).items() if k in asdict(Config()) and v is not None})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = Data()
    training = begin(config, *read_weights(data.weights), device)
    if (out / STATE).exists():
        training.load(out)
    if not args.plain:
        fuse()

    @cache
    def batches(epoch: int) -> Sequence[Batch]:
        return _kept(out / f"epoch-{epoch}.pkl", lambda: data.training(config, epoch))

    with (out / "log.jsonl").open("a", encoding="utf-8") as lines:

        def log(row: dict[str, float]) -> None:
            lines.write(json.dumps(row) + "\n")
            lines.flush()
            if row["step"] % SAVED_EVERY == 0:
                training.save(out)
            if row["step"] % 10 == 0:
                sys.stderr.write(f"{time.monotonic() - started:.0f} s: {json.dumps(row)}\n")

        done = go_on(training, batches, lambda: time.monotonic() - started > 60 * args.minutes, log)
    training.save(out)
    sys.stderr.write(f"{'done' if done else 'to be gone on with'}: step {training.step}\n")


def _kept(path: Path, make: Callable[[], Sequence[Batch]]) -> Sequence[Batch]:
    """What was made before, so that going on is quick; the file is this command's own."""
    if not path.exists():
        partial = path.with_suffix(".partial")
        partial.write_bytes(pickle.dumps(make()))
        partial.replace(path)
    return pickle.loads(path.read_bytes())


if __name__ == "__main__":
    main()

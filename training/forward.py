"""Score questions by the trainer's own forward pass, over the weights that a rung's file holds: quick on a GPU.

It differs from the engine in that activations are not quantised on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from training.data import Data
from training.items import Question
from training.model import Adapted, read_weights, tensors_of
from training.packing import pack
from training.score import Answer, Kept, batched

TOKENS = 8192
"""Of a batch."""
CHUNK = 512
"""Questions between two looks at the clock."""


def model_of(path: Path, device: torch.device) -> Adapted:
    """The model in a GGUF file, dequantised, with no change on top."""
    shape, tensors = read_weights(path)
    compute = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = Adapted(shape, tensors, 1, 1.0, compute, 0).to(device)
    model.merge()
    return model


@torch.no_grad()
def logits_of(model: Adapted, data: Data, questions: Sequence[Question]) -> list[list[npt.NDArray[np.float32]]]:
    """Per question and asked field the logits of its values."""
    trees = data.trees(questions)
    found = [[np.zeros(0, np.float32) for _ in tree.branches] for tree in trees]
    for batch in pack(trees, TOKENS, None):
        inputs = tensors_of(batch, model.embedding.device)
        rows = model.logits(model(inputs), inputs["candidates"]).float().cpu().numpy()
        for (tree, branch), row in zip(batch.key, rows, strict=True):
            found[tree][branch] = row[: len(trees[tree].branches[branch].candidates)]
    return found


def answers_of(
    questions: Sequence[Question], logits: Sequence[Sequence[npt.NDArray[np.float32]]]
) -> list[Answer]:  # fmt: skip
    """Answers with log-probabilities, from the logits of `logits_of`."""
    found = []
    for q, rows in zip(questions, logits, strict=True):
        for asked, row in zip(q.asked(), rows, strict=True):
            of = row.astype(np.float64)
            of -= of.max() + np.log(np.exp(of - of.max()).sum())
            scores = dict(zip(asked.values, of.tolist(), strict=True))
            found.append(Answer(q.agent.role, asked.field, q.task, q.slice, q.handwritten, q.item, scores, asked.right))
    return found


def answers(
    path: Path, data: Data, questions: Sequence[Question], kept: Kept, until: Callable[[], bool] = lambda: False
) -> list[Answer] | None:
    """As `score.answers`, for the same file, in torch on the best device there is."""
    found = kept.read()
    done = {a.item for a in found}
    rest = [q for q in questions if q.item not in done]
    if not rest:
        return found
    model = model_of(path, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    for some in batched(sorted(rest, key=lambda q: (q.agent.role, len(q.prompt.user))), CHUNK):
        if until():
            return None
        new = answers_of(some, logits_of(model, data, some))
        found += new
        kept.add(new)
    return found

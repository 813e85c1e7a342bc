"""Escalation measured on the real model: unseen items asked of the pruned rung, and of full depth where in doubt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.broker_quality import MARGIN, MOST_DEEP, Gap
from benchmarks.scorecard_columns import Case, sampled
from finllm.agents.asking import Question, ask_all
from finllm.graphs.calibrate import open_llama
from finllm.models.cards import adapter_for
from finllm.models.ladder import PRUNED, ensure_rung
from finllm.models.registry import default_source
from finllm.scheduler.filling import best
from finllm.settings import Settings
from training.corpus.build import build_corpus
from training.corpus.schema import InjectionItem, Split
from training.items import question

EACH = 80
"""Items of each task, of either split."""


@dataclass(frozen=True)
class Asked:
    """A tier's answers to some items: the share of fields right, how sure it was of its least sure one, and the work.

    `right` and `sure`: by item. `fields`: labelled fields by item. `seconds`: of the engine, all items together.
    """

    right: Sequence[float]
    sure: Sequence[float]
    fields: Sequence[int]
    seconds: float


@dataclass(frozen=True)
class Escalation:
    """On the test items: shares of fields right; of always-deep, the share of tokens used and of seconds saved."""

    edge: float
    deep: float
    escalated: float
    deep_tokens: float
    saved: float
    gaps: tuple[Gap, ...]

    @property
    def kept(self) -> float:
        return self.escalated / self.deep


def escalation(settings: Settings) -> Escalation | None:
    """Ask both tiers; the confidence below which full depth is asked is chosen on validation. None without the rung."""
    source = default_source(settings)
    adapter, _card = adapter_for(source, settings, PRUNED)
    if adapter is None or adapter.layers is None:
        return None
    cases = {split: _cases(split) for split in ("validation", "test")}
    every = [*cases["validation"], *cases["test"]]
    edge, deep = (_ask(every, settings, precision) for precision in (PRUNED, settings.deep_precision))
    tokens = np.array([len(case.asked.prompt.user) for case in every], dtype=np.float64)
    first, test = np.arange(len(cases["validation"])), np.arange(len(cases["validation"]), len(every))
    sure = np.array(edge.sure)
    order = first[np.argsort(sure[first], kind="stable")]
    spent = np.cumsum(tokens[order]) / tokens[first].sum()
    threshold = sure[order[int(np.searchsorted(spent, MARGIN * MOST_DEEP))]]
    doubted = test[sure[test] < threshold]
    weight = np.array(edge.fields, dtype=np.float64)
    below, above = np.array(edge.right), np.array(deep.right)
    answered = below.copy()
    answered[doubted] = above[doubted]

    def share(right: np.ndarray[tuple[int, ...], np.dtype[np.float64]], of: Sequence[int] = tuple(test)) -> float:
        return float((right[list(of)] * weight[list(of)]).sum() / weight[list(of)].sum())

    deep_tokens = float(tokens[doubted].sum() / tokens[test].sum())
    roles = dict.fromkeys(every[at].asked.agent.role for at in test)
    of = {role: [int(at) for at in test if every[at].asked.agent.role == role] for role in roles}
    return Escalation(
        share(below), share(above), share(answered), deep_tokens,
        1 - edge.seconds / deep.seconds - deep_tokens,
        tuple(Gap(role, share(below, at), share(above, at), len(at)) for role, at in of.items()),
    )  # fmt: skip


def _cases(split: Split) -> list[Case]:
    items = [item for item in build_corpus().items[split] if not isinstance(item, InjectionItem)]
    return sampled([Case(item, question(item)) for item in items], EACH)


def _ask(cases: Sequence[Case], settings: Settings, precision: str) -> Asked:
    """Errors: InputError for a model that cannot be used; BackendError."""
    source = default_source(settings)
    adapter, card = adapter_for(source, settings, precision)
    rung = ensure_rung(source, precision, settings, adapter=adapter)
    asked = [
        Question(c.asked.agent, c.asked.inputs, tuple(c.asked.labels), {"because": c.asked.offered}) for c in cases
    ]
    with open_llama(source, rung, settings) as backend:
        asyncio.run(ask_all(backend, asked[:1], card=card))
        started = time.monotonic()
        told = asyncio.run(ask_all(backend, asked, card=card))
        seconds = time.monotonic() - started
    right, sure = [], []
    for case, one in zip(cases, told, strict=True):
        said = {field: best(one.choices[field]) for field in case.asked.labels if field in one.choices}
        right.append(float(np.mean([said.get(field) in wanted for field, wanted in case.asked.labels.items()])))
        sure.append(min((max(one.choices[field].values()) for field in said), default=0.0))
    return Asked(right, sure, [len(case.asked.labels) for case in cases], seconds)

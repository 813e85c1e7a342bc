"""Escalation measured on the real model: unseen items asked of the pruned rung, or of full depth where it is worth it.

Votes, and a router that decides by the text before anything is asked, stand beside it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.broker.quality import Gap
from finllm.agents.asking import Question as Asked
from finllm.agents.asking import ask_all
from finllm.evaluation.calibrate import open_llama
from finllm.models.cards import AdapterCard, adapter_for
from finllm.models.embedding import Embedder
from finllm.models.ladder import PRUNED, ensure_rung
from finllm.models.registry import default_source
from finllm.scheduler.decoding.filling import Choices
from finllm.scheduler.money.amount import total
from finllm.scheduler.placement.divergence import VOTES, tally
from finllm.settings import Settings
from training.corpus.build import build_corpus
from training.escalation import EACH, average, drawn, right, short
from training.items import Question

Floats = npt.NDArray[np.float64]
NEIGHBOURS = 15
"""Validation items that the router beforehand looks at."""


@dataclass(frozen=True)
class Tier:
    """A tier's answers to some questions, by question, and the seconds and joules that they took together."""

    told: Sequence[Choices]
    seconds: float
    joules: float
    basis: str


@dataclass(frozen=True)
class Escalation:
    """On the test items: shares of fields right; of always-deep, the share of text read, of joules and seconds saved.

    `routed`: by a router that looks at the text alone, at the same share of it. `at_once`: share of the text that full
    depth reads without the edge having been asked. `kept`: share of always-deep's quality, with its 95 % interval over
    the items. `gaps`: edge against deep by agent; `votes`: deep against the mean of its votes, where there are lines to
    put in another order; `frontier`: the rule at other prices of full depth.
    """

    edge: float
    deep: float
    escalated: float
    routed: float
    deep_tokens: float
    at_once: float
    saved: float
    quicker: float
    basis: str
    kept: tuple[float, float, float]
    gaps: tuple[Gap, ...]
    votes: tuple[Gap, ...]
    frontier: tuple[Point, ...]


PRICES = (0.5, 0.6, 0.7, 0.8, 1.0, 1.25, 1.5)
"""Times the card's `worth` at which the rule is looked at."""


@dataclass(frozen=True)
class Point:
    """At `price` times the card's `worth`: share of always-deep's quality with its 95 % interval, share of the text
    that full depth reads, and of the joules what is saved, reckoned by text.
    """

    price: float
    kept: tuple[float, float, float]
    deep_tokens: float
    saved: float


@dataclass(frozen=True)
class _Asked:
    """The test items as each way answered them; arrays are (n_questions,).

    `below`, `above` and `voted`: the share of fields right by the edge, by full depth and by its votes. `fields` and
    `lengths`: how many fields a question has and how long its text is. `expected`: how far the edge is reckoned to fall
    short before it is asked; `behind`: once it has answered.
    """

    questions: Sequence[Question]
    several: Sequence[int]
    edge: Tier
    deep: Tier
    below: Floats
    above: Floats
    voted: Floats
    fields: Floats
    lengths: Floats
    expected: Floats
    behind: Floats

    def share_right(self, of: Floats) -> float:
        return float(np.average(of, weights=self.fields))

    def share_of_text(self, of: npt.NDArray[np.bool_]) -> float:
        return float(self.lengths @ of / self.lengths.sum())

    def kept(self, rule: Floats) -> tuple[float, float, float]:
        """The share of full depth's quality that a rule keeps, with its interval."""
        return _ratio(rule * self.fields, self.above * self.fields)

    def gaps(self, first: Floats, then: Floats, among: Sequence[int]) -> tuple[Gap, ...]:
        roles = [self.questions[at].agent.role for at in among]
        of = {role: [at for at, one in zip(among, roles, strict=True) if one == role] for role in dict.fromkeys(roles)}
        return tuple(
            Gap(role, np.average(first[at], weights=self.fields[at]), np.average(then[at], weights=self.fields[at]),
                len(at)) for role, at in of.items()
        )  # fmt: skip

    def point(self, price: float, worth: float) -> Point:
        """What the rule gives where full depth costs `price` times as much."""
        deeper, once = (self.share_of_text(of >= price * worth) for of in (self.behind, self.expected))
        found = np.where(self.behind >= price * worth, self.above, self.below)
        saved = 1 - deeper - (1 - once) * self.edge.joules / self.deep.joules
        return Point(price, self.kept(found), deeper, saved)


def escalation(settings: Settings) -> Escalation | None:
    """Ask both tiers, and full depth in other orders; the rule is the pruned adapter's card's. None without it."""
    adapter, card = adapter_for(default_source(settings), settings, PRUNED)
    if adapter is None or card is None or adapter.layers is None:
        return None
    items = build_corpus().items
    questions = drawn(items["test"], EACH)
    asked = _ask_every_way(questions, settings, card)
    at_once, doubted = asked.expected >= card.worth, asked.behind >= card.worth
    deep_tokens = asked.share_of_text(doubted)
    spent = [
        ask([questions[at] for at in np.flatnonzero(of)], settings, precision)
        for of, precision in ((~at_once, PRUNED), (doubted, settings.deep_precision))
    ]
    order = np.argsort(-beforehand(questions, drawn(items["validation"], EACH), settings, card), kind="stable")
    routed = np.zeros(len(questions), dtype=bool)
    routed[order[np.cumsum(asked.lengths[order]) <= deep_tokens * asked.lengths.sum()]] = True
    rule = np.where(doubted, asked.above, asked.below)
    return Escalation(
        edge=asked.share_right(asked.below),
        deep=asked.share_right(asked.above),
        escalated=asked.share_right(rule),
        routed=asked.share_right(np.where(routed, asked.above, asked.below)),
        deep_tokens=deep_tokens,
        at_once=asked.share_of_text(at_once),
        saved=1 - sum(tier.joules for tier in spent) / asked.deep.joules,
        quicker=1 - sum(tier.seconds for tier in spent) / asked.deep.seconds,
        basis=asked.deep.basis,
        kept=asked.kept(rule),
        gaps=asked.gaps(asked.below, asked.above, range(len(questions))),
        votes=asked.gaps(asked.above, asked.voted, asked.several),
        frontier=tuple(asked.point(price, card.worth) for price in PRICES),
    )


def _ask_every_way(questions: Sequence[Question], settings: Settings, card: AdapterCard) -> _Asked:
    """Ask the edge, full depth, and full depth with the lines of evidence in other orders."""
    several = [at for at, asked in enumerate(questions) if len(asked.offered) > 1]
    edge, deep = (ask(questions, settings, precision) for precision in (PRUNED, settings.deep_precision))
    others = [
        ask([questions[at] for at in several], settings, settings.deep_precision, turn) for turn in range(1, VOTES)
    ]
    above = _shares(questions, deep.told)
    voted = above.copy()
    for place, at in enumerate(several):
        votes = [deep.told[at], *(tier.told[place] for tier in others)]
        voted[at] = _share(questions[at], _mean_vote(questions[at], votes))
    expected = np.array([short(q, average(q, card.accuracy), card.thresholds) for q in questions])
    return _Asked(
        questions=questions,
        several=several,
        edge=edge,
        deep=deep,
        below=_shares(questions, edge.told),
        above=above,
        voted=voted,
        fields=np.array([len(asked.labels) for asked in questions], dtype=np.float64),
        lengths=np.array([len(asked.prompt.user) for asked in questions], dtype=np.float64),
        expected=expected,
        behind=np.maximum(expected, _short(questions, edge, card)),
    )


def ask(questions: Sequence[Question], settings: Settings, precision: str, turn: int = 0) -> Tier:
    """All questions at a precision, the lines of evidence `turn` places on.

    Errors: InputError for a model that cannot be used; BackendError.
    """
    source = default_source(settings)
    adapter, card = adapter_for(source, settings, precision)
    rung = ensure_rung(source, precision, settings, adapter=adapter)
    asked = [Asked(q.agent, q.inputs, tuple(q.labels), {"because": q.offered}, turn) for q in questions]
    with open_llama(source, rung, settings) as backend:
        asyncio.run(ask_all(backend, asked[:1], card=card))
        started = time.monotonic()
        told = asyncio.run(ask_all(backend, asked, card=card))
        seconds = time.monotonic() - started
        took = total([one.joules for one in told])
        assert took is not None, "the engine tells no joules"
        return Tier([one.choices for one in told], seconds, took.value, took.basis)


def beforehand(
    questions: Sequence[Question], known: Sequence[Question], settings: Settings, card: AdapterCard
) -> Floats:
    """What a router expects to gain by the text alone: how far the edge was short on the nearest validation items."""
    gained = _short(known, ask(known, settings, PRUNED), card)
    embedder = Embedder()
    near = embedder.embed([q.prompt.user for q in questions]) @ embedder.embed([q.prompt.user for q in known]).T
    return gained[np.argsort(-near, axis=1)[:, :NEIGHBOURS]].mean(axis=1)


def _short(questions: Sequence[Question], tier: Tier, card: AdapterCard) -> Floats:
    return np.array([short(q, said, card.thresholds) for q, said in zip(questions, tier.told, strict=True)])


def _ratio(ours: Floats, theirs: Floats) -> tuple[float, float, float]:
    """The ratio of two sums over items, with its 95 % interval by drawing the items anew."""
    drawn_anew = np.random.default_rng(0).integers(0, len(ours), (2_000, len(ours)))
    ratios = ours[drawn_anew].sum(axis=1) / theirs[drawn_anew].sum(axis=1)
    least, most = np.quantile(ratios, (0.025, 0.975))
    return float(ours.sum() / theirs.sum()), float(least), float(most)


def _shares(questions: Sequence[Question], told: Sequence[Choices]) -> Floats:
    return np.array([_share(asked, said) for asked, said in zip(questions, told, strict=True)])


def _share(asked: Question, said: Choices) -> float:
    return float(np.mean([*right(asked, said).values()]))


def _mean_vote(asked: Question, votes: Sequence[Choices]) -> Choices:
    template = Asked(asked.agent, asked.inputs, tuple(asked.labels), {"because": asked.offered}).template
    return tally(template, votes).choices if all(votes) else votes[0]

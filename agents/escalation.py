"""Asking an agent again where its judgement diverges: one precision up, then a vote at full depth; each on record."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from finllm.agents.agent import (
    LABELS,
    Agent,
    Caller,
    J_co,
    Offered,
    Opinion,
    judge,
    pick_fields,
    prompt_version,
    render_prompt,
)
from finllm.agents.escalations import Escalation
from finllm.events import EventBus, Judged, Noted
from finllm.models.cards import AdapterCard
from finllm.models.ladder import PRUNED
from finllm.scheduler.decoding.filling import Choices
from finllm.scheduler.decoding.template import compile_template
from finllm.scheduler.money.account import Account
from finllm.scheduler.money.budget import DIMENSIONS, Budget
from finllm.scheduler.placement.divergence import VOTES, Divergence, divergences, finer, shortfall, tally

SHARE = 0.5
"""Of what its run has left, the part that each call of an escalation may spend: the answer there was may have to do."""


async def judge_escalating(
    agent: Agent[J_co],
    inputs: Mapping[str, str],
    offered: Mapping[str, Sequence[Offered]],
    caller: Caller,
    *,
    floor: str | None = None,
    because: Escalation | None = None,
    before: Iterable[Opinion] = (),
) -> Opinion[J_co]:
    """Ask an agent, and again at the next precision up where a field is under the card's threshold for it.

    Where the pruned rung is known to be under them on average, it is passed over. The finer answer stands. At the
    finest local precision an agent that may, votes: the lines of evidence and the options each time in another order,
    the mean probability decides, and a field without a majority is split. One round per agent and run: `before` are the
    run's opinions until now. `because` says why this is asked at all, where another answer led to it. Without a card,
    or for a role that is not escalated, this is `judge`. Errors: as `judge`; where an escalation gets no answer or
    would take more than half of what is left, the answer before it stands, or the coarser one is asked for.
    """
    first = await _first(agent, inputs, offered, caller, floor, because)
    if because is not None or caller.card is None or agent.role not in caller.escalate or _had_its_round(agent, before):
        return first

    def diverged(opinion: Opinion[J_co]) -> Divergence | None:
        weights = {offer.name: offer.weights_sha256 for offer in caller.broker.offers}
        card = caller.card_of(opinion.precision, weights.get(opinion.backend or ""))
        return _diverged(agent, inputs, offered, opinion.choices, card, opinion.prompt_version)

    found = diverged(first)
    if found is None:
        return first
    opinion = await _next_up(agent, inputs, offered, caller, first, found)
    still = diverged(opinion)
    if still is None or not _votes(agent, offered, caller, opinion):
        return opinion
    return await _voted(agent, inputs, offered, caller, opinion, still)


def _had_its_round(agent: Agent, before: Iterable[Opinion]) -> bool:
    """Whether an answer of the agent in this run was already asked again for its probabilities."""
    told = (one for opinion in before if opinion.agent == agent.role for one in opinion.escalations)
    return any(one.cause == "threshold" for one in told)


async def _first(
    agent: Agent[J_co], inputs: Mapping[str, str], offered: Mapping[str, Sequence[Offered]], caller: Caller,
    floor: str | None, because: Escalation | None,
) -> Opinion[J_co]:  # fmt: skip
    """The judgement that all else follows from: above the pruned rung where that is too often wrong to be asked."""
    if because is not None:
        opinion = await judge(agent, inputs, offered, replace(caller, why=because.words), floor=floor)
        return opinion.model_copy(update={"escalations": [because.model_copy(update={"to": opinion.precision})]})
    calls: list[str] = []
    card, version = caller.pruned, prompt_version(agent)
    floors = {agent.floor, floor or PRUNED, caller.floor or PRUNED}
    if card is not None and floors == {PRUNED} and agent.role in caller.escalate:
        found = _diverged(agent, inputs, offered, card.expected_of(agent.role, version), card, version)
        above = finer(PRUNED, {offer.precision for offer in caller.broker.offers})
        if found is not None and above:
            cause = Escalation(cause="beforehand", before=PRUNED, to=above[0], field=found.field,
                               probability=found.probability, threshold=found.threshold)  # fmt: skip
            opinion = await judge(agent, inputs, offered, _again(caller, cause.words, quiet=False), floor=above[0])
            if opinion.status == "judged":
                cause = cause.model_copy(update={"to": opinion.precision})
                return opinion.model_copy(update={"escalations": [cause]})
            calls = opinion.calls
    opinion = await judge(agent, inputs, offered, caller, floor=floor)
    return opinion.model_copy(update={"calls": [*calls, *opinion.calls]})


def _diverged(
    agent: Agent, inputs: Mapping[str, str], offered: Mapping[str, Sequence[Offered]], choices: Choices,
    card: AdapterCard | None, version: str,
) -> Divergence | None:  # fmt: skip
    """The field of an answer that is farthest under its threshold, if all of them are far enough for the prompt."""
    if card is None:
        return None
    found = divergences(choices, card.thresholds_of(agent.role, version))
    if found and card.worth:
        prompt = render_prompt(agent, inputs, dict(zip(LABELS, _lines(agent, offered), strict=False)))
        return found[0] if shortfall(found, len(prompt.user)) >= card.worth else None
    return found[0] if found else None


async def _next_up(
    agent: Agent[J_co], inputs: Mapping[str, str], offered: Mapping[str, Sequence[Offered]], caller: Caller,
    first: Opinion[J_co], found: Divergence,
) -> Opinion[J_co]:  # fmt: skip
    """The judgement at the next precision that answers; the first where there is none."""
    for precision in finer(first.precision or agent.floor, {offer.precision for offer in caller.broker.offers}):
        cause = Escalation(cause="threshold", before=first.precision, to=precision, field=found.field,
                           probability=found.probability, threshold=found.threshold)  # fmt: skip
        opinion = await judge(agent, inputs, offered, _again(caller, cause.words, quiet=False), floor=precision)
        if opinion.status == "judged":
            caller.bus.emit(Noted(level="info", message=f"{agent.role}, {cause.words}"))
            cause = cause.model_copy(update={"to": opinion.precision})
            return opinion.model_copy(
                update={"calls": [*first.calls, *opinion.calls], "escalations": [*first.escalations, cause]}
            )
    return first


def _votes(agent: Agent, offered: Mapping[str, Sequence[Offered]], caller: Caller, opinion: Opinion) -> bool:
    """Whether a judgement is voted on: at the finest precision there is, none stronger, and something to reorder."""
    offers = caller.broker.offers
    finest = not finer(opinion.precision or agent.floor, {offer.precision for offer in offers})
    stronger = any(offer.stronger for offer in offers)
    return finest and not stronger and agent.votes and len(_lines(agent, offered)) > 1


async def _voted(
    agent: Agent[J_co], inputs: Mapping[str, str], offered: Mapping[str, Sequence[Offered]], caller: Caller,
    first: Opinion[J_co], found: Divergence,
) -> Opinion[J_co]:  # fmt: skip
    """The judgement that the votes' mean probability decides; the first where nobody else votes."""
    turns = range(1, min(VOTES, len(_lines(agent, offered))))
    cause = Escalation(cause="threshold", before=first.precision, to=first.precision, field=found.field,
                       probability=found.probability, threshold=found.threshold)  # fmt: skip
    words = f"a vote at {first.precision}, evidence and options in another order: {cause.reason}"
    asking = _again(caller, words, quiet=True)
    others = await asyncio.gather(
        *(judge(agent, inputs, offered, asking, floor=first.precision, turn=turn) for turn in turns)
    )
    votes = [first, *(one for one in others if one.status == "judged" and one.precision == first.precision)]
    ids = {field: [line.id for line in offered[field]] for field in pick_fields(agent)}
    template = compile_template(agent.judgement, ids, count=agent.picks)
    counted = tally(template, [vote.choices for vote in votes])
    judged = agent.judgement.model_validate_json(counted.text)
    split = {field: list(values) for field, values in counted.split.items()}
    cause = cause.model_copy(update={"votes": len(votes), "split": split})
    caller.bus.emit(Noted(level="info", message=f"{agent.role}, {cause.words}"))
    caller.bus.emit(Judged(agent=agent.role, judgement=judged.model_dump(mode="json")))
    calls = [key for opinion in others for key in opinion.calls]
    return first.model_copy(update={
        "judgement": judged, "choices": counted.choices, "calls": [*first.calls[:-1], *calls, first.calls[-1]],
        "escalations": [*first.escalations, cause],
    })  # fmt: skip


def _lines(agent: Agent, offered: Mapping[str, Sequence[Offered]]) -> list[Offered]:
    return [line for field in pick_fields(agent) for line in offered[field]]


def _again(caller: Caller, why: str, *, quiet: bool) -> Caller:
    """The caller of an escalation: with its reason, and a part of the run's budget."""
    bus = EventBus() if quiet else caller.bus
    return replace(caller, why=why, budget=_part(caller.account), bus=bus)


def _part(account: Account) -> Budget:
    left = {name: account.left(name) for name in DIMENSIONS}
    kept = {name: max(rest, 0.0) * SHARE for name, rest in left.items() if math.isfinite(rest)}
    whole = {name: int(rest) if name in ("tokens", "deep_tokens") else rest for name, rest in kept.items()}
    return Budget(**whole)  # type: ignore[arg-type]

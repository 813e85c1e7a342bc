"""What a run leaves out once its budget grows short, before it stops; on record, so that a replay does the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from finllm.agents.agent import LABELS, Agent, Offered, Opinion, render_prompt
from finllm.agents.escalation import SHARE
from finllm.agents.narrative import NARRATIVE
from finllm.desk.desk import RunContext
from finllm.desk.spending import THRIFT
from finllm.events import Noted
from finllm.scheduler.money.budget import SAID, Dimension
from finllm.scheduler.placement.policy import CHARS_PER_TOKEN
from finllm.scheduler.placement.task import key_of
from finllm.scheduler.record import Entry

_COUNTED: tuple[Dimension, ...] = ("tokens", "joules", "grams", "usd")


def left_out(run: RunContext, node: str, what: str, tokens: Callable[[], float], share: float = SHARE) -> str:
    """Why a run does without something that takes about so many tokens: that is more than a share of what is left of
    some budget, half of it as for an escalation. Empty where it need not. Decided once; the record and whoever watches
    are told.
    """
    ledger, about = run.desk.ledger, {"run": run.run_id, "node": node, "what": what}
    key = key_of("thrift", about)
    if (entry := ledger.lookup(key)) is not None:
        ledger.used(key, run_id=run.run_id, node=node)
        return entry.response["why"]
    why = short_by(run, tokens, share)
    if why:
        ledger.record(Entry(key, THRIFT, "run", about, {"what": what, "why": why}), run_id=run.run_id, node=node)
        run.desk.bus.emit(Noted(level="warning", message=f"{node}: without {what}, {why}"))
    return why


def short_by(run: RunContext, tokens: Callable[[], float], share: float) -> str:
    """Why about so many tokens do not fit in a share of what is left of some budget; empty where they do."""
    left: dict[Dimension, float] = {name: run.account.left(name) for name in _COUNTED}
    limited: dict[Dimension, float] = {name: rest for name, rest in left.items() if rest < float("inf")}
    if not limited:
        return ""
    count, broker = tokens(), run.desk.broker
    least = min((broker.costing.most(offer, count) for offer in broker.offers), key=lambda one: one.of("joules"))
    for name, rest in limited.items():
        need = count if name == "tokens" else least.of(name)
        if need > share * max(rest, 0.0):
            return f"which would take {need:.4g} of the {max(rest, 0.0):.4g} {SAID[name]} left"
    return ""


def precedents_for(
    run: RunContext, node: str, agent: Agent, inputs: Mapping[str, str], lines: Sequence[Offered], past: Sequence[str]
) -> str:
    """The past events that a reading's prompt holds: fewer of them, and then none, where the budget is short."""
    labelled = dict(zip(LABELS, lines, strict=False))
    for count in range(len(past), 0, -1):
        told = "\n".join(past[:count])

        def tokens(told: str = told) -> float:
            prompt = render_prompt(agent, {**inputs, "precedents": told}, labelled)
            return (len(prompt.system) + len(prompt.user)) / CHARS_PER_TOKEN

        if not left_out(run, node, f"past event {count} in the prompt", tokens):
            return told
    return ""


def short_of(opinions: Iterable[Opinion]) -> list[str]:
    """The agents that were not asked, or got no answer, since the budget did not reach."""
    return list(dict.fromkeys(opinion.agent for opinion in opinions if opinion.short))


def short_line(opinions: Iterable[Opinion]) -> list[str]:
    """What a report says of them before anything else; nothing where the budget did reach."""
    short = short_of(opinions)
    if not short:
        return []
    told = f"The budget did not reach for {', '.join(short)}: nothing is claimed that they would have judged."
    if NARRATIVE.role in short:
        told += " The event was not read: the P&L follows from the shocks that the scenario gives."
    return [told]

"""What a run leaves out once its budget grows short, before it stops; on record, so that a replay does the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from finllm.agents.agent import LABELS, Agent, Offered, render_prompt
from finllm.agents.escalation import SHARE
from finllm.desk.desk import RunContext
from finllm.desk.spending import THRIFT
from finllm.events import Noted
from finllm.scheduler.money.budget import SAID, Dimension
from finllm.scheduler.placement.policy import CHARS_PER_TOKEN
from finllm.scheduler.placement.task import key_of
from finllm.scheduler.record import Entry

_COUNTED: tuple[Dimension, ...] = ("tokens", "joules", "grams", "usd")


def left_out(run: RunContext, node: str, what: str, tokens: Callable[[], float]) -> bool:
    """Whether a run does without something that takes about so many tokens: where that is more than half of what is
    left of some budget, as for an escalation. Decided once; the record and whoever watches are told.
    """
    ledger, about = run.desk.ledger, {"run": run.run_id, "node": node, "what": what}
    key = key_of("thrift", about)
    if ledger.lookup(key) is not None:
        ledger.used(key, run_id=run.run_id, node=node)
        return True
    why = _short(run, tokens)
    if not why:
        return False
    ledger.record(Entry(key, THRIFT, "run", about, {"what": what, "why": why}), run_id=run.run_id, node=node)
    run.desk.bus.emit(Noted(level="warning", message=f"{node}: without {what}, {why}"))
    return True


def _short(run: RunContext, tokens: Callable[[], float]) -> str:
    left: dict[Dimension, float] = {name: run.account.left(name) for name in _COUNTED}
    limited: dict[Dimension, float] = {name: rest for name, rest in left.items() if rest < float("inf")}
    if not limited:
        return ""
    count, broker = tokens(), run.desk.broker
    least = min((broker.costing.most(offer, count) for offer in broker.offers), key=lambda one: one.of("joules"))
    for name, rest in limited.items():
        need = count if name == "tokens" else least.of(name)
        if need > SHARE * max(rest, 0.0):
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

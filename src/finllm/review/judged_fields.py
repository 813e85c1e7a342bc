"""What each agent judged, field by field: the value, its probability as the run used it, and the next likely one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict

from finllm.agents.agent import Opinion
from finllm.agents.narrative import NARRATIVE, Asked
from finllm.agents.pooling import ByChannels, pooled
from finllm.agents.sanity_checker import SANITY_CHECKER
from finllm.desk.request import RunRequest
from finllm.graphs.basis import STATE
from finllm.graphs.judged import JudgedRow
from finllm.graphs.report import Dissent, Report
from finllm.memory.entries import RecordedCall
from finllm.memory.reading import Use
from finllm.review.asked_source import asked_source
from finllm.review.heard import heard_on_record
from finllm.review.odds import begun_with, calibrated
from finllm.scheduler.decoding.filling import Choices, best
from finllm.scheduler.decoding.template import Choose, Template

T = TypeVar("T")


class FieldRow(BaseModel):
    """A field of a judgement. `probability` is the one that the run used: calibrated, pooled with the channels, the
    mean of the votes; `next_value` the likeliest other one.

    `about`: the source, where the judgement is of one; `node`: where it was asked for. What was judged before the node
    that stands is here too, overruled by that. `because`: rows of evidence that the judgement cites, and for a
    factor those of the channels that move it. `overruled`: what stands instead and by whose word, None where it stands.
    `call`: the key of the model call, `by`: the backend. `votes`: how many answers the probability is the mean of.
    """

    model_config = ConfigDict(frozen=True)

    agent: str
    about: str | None
    node: str
    field: str
    value: str
    probability: float | None
    next_value: str | None
    next_probability: float | None
    because: tuple[str, ...]
    overruled: str | None
    call: str
    by: str
    prompt_version: str
    reused: bool
    votes: int = 1


@dataclass(frozen=True)
class _Told:
    """What an agent said at a node, of a source where it is of one: the call that stands there, and the odds as used.

    `node` is named as a replay names it: NODE:2 for its second pass. `said`: what the report has of it, None for a run
    without; `later`: the node that judged the same again.
    """

    use: Use
    call: RecordedCall
    about: str | None
    node: str
    odds: Choices
    votes: int
    said: JudgedRow | None
    later: str | None


class _NotAsked(BaseModel):
    """A judgement of which the reader of channels decided every factor."""

    because: tuple[str, ...] = ()


def judged_fields(uses: Sequence[Use], request: RunRequest, report: Report | None) -> list[FieldRow]:
    """A row for each field of each judgement, agent after agent in the order in which they were asked."""
    return [row for told in _told(uses, request, report) for row in _rows(told, report)]


def _told(uses: Sequence[Use], request: RunRequest, report: Report | None) -> Iterator[_Told]:
    begun, heard = begun_with(uses), heard_on_record(uses, request)
    asked = dict[tuple[str, str | None, str], dict[str, tuple[Use, RecordedCall]]]()
    ended = Counter[str]()
    for use in uses:
        ended[use.node] += use.entry.kind == STATE
        if use.entry.kind == "call" and (call := RecordedCall.of(use.entry)).judges:
            about = asked_source(call.prompt, request) if call.agent == SANITY_CHECKER.role else None
            node = f"{use.node}:{ended[use.node] + 1}" if ended[use.node] else use.node
            asked.setdefault((call.agent, about, node), {}).setdefault(use.key, (use, call))
    for (agent, about, node), of_node in asked.items():
        calls = list(of_node.values())
        nodes = [one[2] for one in asked if one[:2] == (agent, about)]
        at = nodes.index(node)
        row = _at([one for one in (report.agents if report else ()) if one.agent == agent and about is None], at, nodes)
        if row is not None and row.status == "abstained":
            continue
        votes = max([1, *(why.votes or 1 for why in row.escalations)]) if row else 1
        counted = calls[-votes:]
        use, call = counted[0]
        odds = _mean([calibrated(one, begun) for _, one in counted], call.steps())
        if agent == NARRATIVE.role:
            odds = _with_channels(use, call, odds, heard)
        said = [one for one in (report.judged if report else ()) if (one.agent, one.about) == (agent, about)]
        later = nodes[at + 1] if at + 1 < len(nodes) else None
        yield _Told(use, call, about, node, odds, len(counted), _at(said, at, nodes), later)


def _at(rows: Sequence[T], at: int, nodes: Sequence[str]) -> T | None:
    """The row of a report that is of the node at this place, where it has one for each."""
    return rows[at] if len(rows) == len(nodes) else None


def _mean(votes: Sequence[Choices], template: Template) -> Choices:
    """The mean odds of each field, its values in the order in which they were offered, which decides a tie."""
    order = {step.field: step.values for step in template if isinstance(step, Choose)}
    found: Choices = {}
    for field in dict.fromkeys(field for one in votes for field in one):
        told = [one[field] for one in votes if field in one]
        named = dict.fromkeys((*order.get(field, ()), *(value for one in told for value in one)))
        values = [value for value in named if any(value in one for one in told)]
        found[field] = {value: sum(one.get(value, 0.0) for one in told) / len(told) for value in values}
    return found


def _with_channels(use: Use, call: RecordedCall, odds: Choices, heard: ByChannels | None) -> Choices:
    """The reading's odds with those of the channels pooled in, as the run had them."""
    said = json.loads(call.text)
    judgement = Asked.model_validate(said) if "factors" in said else _NotAsked.model_validate(said)
    opinion = Opinion[Any](agent=call.agent, status="judged", judgement=judgement, choices=odds, calls=[], backend=None,
                           precision=None, prompt_version=call.prompt_version)  # fmt: skip
    offer = cast("Mapping[str, Any]", use.entry.request.get("offer", {}))
    return pooled(opinion, heard, stronger=use.node == "reread" and bool(offer.get("stronger"))).choices


def _rows(told: _Told, report: Report | None) -> Iterator[FieldRow]:
    cited = told.said.because if told.said else ()
    for field, odds in told.odds.items():
        if not odds or field in ("because", "closest", "refuse"):
            continue
        value = best(odds)
        others = sorted(((p, name) for name, p in odds.items() if name != value), reverse=True)
        yield FieldRow(
            agent=told.call.agent, about=told.about, node=told.node, field=field, value=value,
            probability=odds[value],
            next_value=others[0][1] if others else None, next_probability=others[0][0] if others else None,
            because=(*cited, *_channels(told.call.agent, field, report)),
            overruled=_overruled(told, field, value, report), call=told.use.key, by=told.use.entry.actor,
            prompt_version=told.call.prompt_version, reused=told.use.reused, votes=told.votes,
        )  # fmt: skip
    for field in ("closest", "refuse"):
        if (named := _picked(told, field, report)) is not None:
            yield named


def _picked(told: _Told, field: str, report: Report | None) -> FieldRow | None:
    """What an agent picked among the rows that it was offered, by their letters: what it refuses, what is closest."""
    if field not in told.odds or not told.odds[field]:
        return None
    picked = [str(one) for one in json.loads(told.call.text).get(field) or ()]
    odds = told.odds[field]
    first = picked[0] if picked else None
    others = sorted(((p, name) for name, p in odds.items() if name not in picked), reverse=True)
    return FieldRow(
        agent=told.call.agent, about=told.about, node=told.node, field=field,
        value=", ".join(_lines(told.call, picked)) or "none",
        probability=odds.get(first) if first else None, call=told.use.key, by=told.use.entry.actor,
        next_value=", ".join(_lines(told.call, [others[0][1]])) if others else None,
        next_probability=others[0][0] if others else None, because=(),
        overruled=_overruled(told, field, "", report), prompt_version=told.call.prompt_version,
        reused=told.use.reused, votes=told.votes,
    )  # fmt: skip


def _lines(call: RecordedCall, labels: Sequence[str]) -> list[str]:
    """The lines of evidence behind letters, as the agent was shown them."""
    lines = dict(line.split(": ", 1) for line in call.prompt.user.splitlines() if line[1:3] == ": ")
    return [lines.get(label, label) for label in labels]


def _channels(agent: str, field: str, report: Report | None) -> tuple[str, ...]:
    """The rows of the channels that move a factor, for a field that is about one."""
    parts = field.split(".")
    if agent != NARRATIVE.role or len(parts) < 3 or report is None:
        return ()
    return tuple(one.probability.evidence for one in report.channels or () if one.moves.get(parts[1]))


def _overruled(told: _Told, field: str, value: str, report: Report | None) -> str | None:
    if told.later is not None:
        return f"what it judged again, at {told.later}"
    if report is None:
        return None
    agent = told.call.agent
    if agent == SANITY_CHECKER.role:
        stands = next((one.verdict for one in report.sources if one.id == told.about), value)
        return None if stands == value else f"{stands}, by the source checks"
    against = [one for one in report.dissent if one.who == agent and _is_about(one, field)]
    return "; ".join(one.other_side for one in against) or None


def _is_about(one: Dissent, field: str) -> bool:
    """Whether a dissent is over this field of its agent's judgement."""
    kind, _, name = field.partition(".")
    name = name.partition(".")[0]
    match field:
        case "direction":
            return one.about == "lean of equities"
        case "verdict":
            return one.about == "text and measurements"
        case "plausibility":
            return one.about == "the shocks together"
        case "refuse":
            return one.about.startswith("shock on ")
        case _ if kind == "rules":
            return one.about == f"rule {name}"
        case _:
            return kind == "factors" and field.endswith(".direction") and one.about == name

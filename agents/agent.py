"""What an agent is (data), what it returns (an opinion), and the one function that runs any of them."""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, Literal

import jinja2
from pydantic import BaseModel, ConfigDict, SerializeAsAny, ValidationError
from typing_extensions import TypeVar

from finllm.agents.escalations import Escalation
from finllm.agents.priors import priors_by, tempered
from finllm.errors import BackendError, BudgetExceeded
from finllm.events import Abstained, EventBus, Judged
from finllm.models.cards import AdapterCard, FieldCalibration
from finllm.models.ladder import PRUNED
from finllm.scheduler.backends.offer import uncarded
from finllm.scheduler.broker import Answer, Broker
from finllm.scheduler.decoding.filling import Choices
from finllm.scheduler.decoding.template import Choose, Pick, Template, compile_template, part_of
from finllm.scheduler.money.account import Account
from finllm.scheduler.money.budget import Budget
from finllm.scheduler.placement.divergence import permuted, turned
from finllm.scheduler.placement.policy import CHARS_PER_TOKEN
from finllm.scheduler.placement.task import PRECISIONS, Prompt, Task

J_co = TypeVar("J_co", bound=BaseModel, default=BaseModel, covariant=True)
"""The type of an agent's judgement."""
PROMPTS = Path(__file__).resolve().parent / "prompts"
LABELS = string.ascii_uppercase
"""What stands before a line of evidence in a prompt; lines beyond the last letter are not offered."""
_FENCE = re.compile(r"<\s*/?\s*data\b[^<>]*>", re.IGNORECASE)
"""What a prompt puts around material: in the material itself it would end it."""
BUDGET = "budget: "
"""What the reason of an agent begins with that abstains for its budget."""
AROUND = 64
"""About how many tokens a chat's marks and a judgement take besides the words of the prompt."""
NEUTRAL = "N/A"
"""Content-free text: what the model answers to it is the prompt's own prior."""


@dataclass(frozen=True)
class Agent(Generic[J_co]):
    """A reasoning role. `floor`: coarsest precision that may answer; `value`: what its answer is expected to be worth.

    `picks` names the judgement's fields that choose among the offered evidence, with how many each may choose. `votes`:
    its lines of evidence have no order of their own, so that answers with them in another order may be averaged.
    """

    role: str
    judgement: type[J_co]
    floor: str
    value: float
    picks: int = 2
    votes: bool = False

    @property
    def prompt(self) -> str:
        return self.role.replace("-", "_")


@dataclass(frozen=True)
class Offered:
    """A line of evidence that an agent may cite; the model sees `text` behind a letter, never the id."""

    id: str
    text: str


@dataclass(frozen=True)
class Caller:
    """On whose behalf an agent asks: the broker, the run's account, and the node of the graph.

    `card`: of the shipped adapter; it calibrates the agents it was trained for, where their answer is of weights that
    have it in them. `pruned`: that of the pruned rung's adapter, where a backend runs that. `escalate`: roles whose
    judgement is asked again where it diverges; then `why` says why this is, and `budget` what a call may spend of the
    run's.
    `values`: what answers turned out to be worth, by role; an agent's own where none is given. `floor` raises every
    agent's own; `background`: its calls give way to all that are not. `critical`: roles whose calls run in two domains.
    """

    broker: Broker
    account: Account
    bus: EventBus
    run_id: str
    node: str
    seed: int
    timeout: float
    card: AdapterCard | None = None
    tenant: str = "default"
    escalate: frozenset[str] = frozenset()
    why: str | None = None
    budget: Budget | None = None
    values: Mapping[str, float] | None = None
    floor: str | None = None
    background: bool = False
    pruned: AdapterCard | None = None
    critical: frozenset[str] = frozenset()

    @property
    def foreign(self) -> frozenset[str]:
        """Digests of the weights at hand that no card tells how to read."""
        return uncarded(self.broker.offers)

    def card_of(self, precision: str | None, weights: str | None = None) -> AdapterCard | None:
        """The card that tells how to read an answer at this precision of these weights (sha256); without them, of
        those at hand at this precision."""
        here = {offer.weights_sha256 for offer in self.broker.offers if offer.precision == precision}
        asked = {weights} if weights else here
        if asked and asked <= self.foreign:
            return None
        return self.pruned if precision == PRUNED else self.card


class Opinion(BaseModel, Generic[J_co]):
    """What came of asking an agent. Abstained: `judgement` is None and `reason` says why; `short`: for its budget.

    `choices` holds the probability of each allowed value by dotted field; citations in `judgement` and `choices` are
    evidence ids. `calls` are ledger keys, those of the answer that stands last. `escalations`: how it came there, in
    order.
    """

    model_config = ConfigDict(frozen=True)

    agent: str
    status: Literal["judged", "abstained"]
    judgement: SerializeAsAny[J_co] | None
    choices: Choices
    calls: list[str]
    backend: str | None
    precision: str | None
    prompt_version: str
    reason: str | None = None
    escalations: list[Escalation] = []
    short: bool = False

    def probability(self, field: str) -> float:
        """Probability of the value that was chosen for a dotted field."""
        return max(self.choices[field].values())


async def judge(
    agent: Agent[J_co],
    inputs: Mapping[str, str],
    offered: Mapping[str, Sequence[Offered]],
    caller: Caller,
    *,
    floor: str | None = None,
    turn: int = 0,
) -> Opinion[J_co]:
    """Ask an agent: decode its judgement, validate it, retry once with the error, else abstain.

    `offered` holds, for each field that cites, the evidence it may cite. `floor` raises the agent's own. `turn` puts
    the lines of evidence, each with its letter, and the options in another order, so many places on. Errors:
    RecordError; a backend that fails makes the agent abstain, and so does a budget that does not reach.
    """
    labels = labels_of(agent, offered)
    lines = zip(LABELS, [line for field in labels for line in offered[field]], strict=False)
    by_label = dict(turned(tuple(lines), turn))
    template = permuted(compile_template(agent.judgement, labels, count=agent.picks), turn)
    version = prompt_version(agent)
    calls: list[str] = []
    problem: str | None = None
    try:
        priors = priors_by(caller.card, agent.role, version)
        own = {PRUNED: priors_by(caller.pruned, agent.role, version)} if caller.pruned else {}
        foreign = caller.foreign if caller.card is not None or own else frozenset[str]()
        known = {} if foreign else priors
        neutral = await _ask_neutrally(agent, inputs, by_label, template, version, caller, floor, known)
        if neutral is not None:
            calls.append(neutral.key)
            priors = neutral.choices | priors
        own = {precision: {**priors, **of} for precision, of in own.items()}
        own |= dict.fromkeys(sorted(foreign), {} if neutral is None else neutral.choices)
        for _attempt in range(2):
            answer = await _ask(agent, inputs, by_label, template, version, caller, floor, priors, own, problem)
            calls.append(answer.key)
            try:
                judged = agent.judgement.model_validate_json(answer.text)
            except ValidationError as error:
                problem = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
                continue
            problem = _miscited(judged, labels)
            if problem is not None:
                continue
            card = caller.card_of(answer.offer.precision, answer.offer.weights_sha256)
            known = {} if card is None else card.fields_of(agent.role, version)
            opinion = _opinion(agent, judged, answer, by_label, calls, version, known)
            caller.bus.emit(Judged(agent=agent.role, judgement=_json_of(opinion)))
            return opinion
        reason = f"invalid twice: {problem}"
    except BackendError as error:
        reason = error.message
    except BudgetExceeded as error:
        return abstained(agent, f"{BUDGET}{error.short}", caller.bus, calls, short=True)
    return abstained(agent, reason, caller.bus, calls)


def abstained(
    agent: Agent[J_co], reason: str, bus: EventBus, calls: Sequence[str] = (), *, short: bool = False
) -> Opinion[J_co]:
    """The opinion of an agent that has none, and why; whoever watches is told."""
    bus.emit(Abstained(agent=agent.role, reason=reason))
    return Opinion(agent=agent.role, status="abstained", judgement=None, choices={}, calls=[*calls], backend=None,
                   precision=None, prompt_version=prompt_version(agent), reason=reason, short=short)  # fmt: skip


async def _ask_neutrally(
    agent: Agent,
    inputs: Mapping[str, str],
    by_label: Mapping[str, Offered],
    template: Template,
    version: str,
    caller: Caller,
    floor: str | None,
    priors: Choices,
) -> Answer | None:
    """What the model says to a prompt without content, of the fields that have no prior yet; None where all have."""
    asked = {s.field for s in template if isinstance(s, Choose) or (isinstance(s, Pick) and s.labels)}
    if not (unknown := asked - set(priors)):
        return None
    rest = part_of(template, unknown)
    blank = {label: Offered(line.id, NEUTRAL) for label, line in by_label.items()}
    ahead = _tokens(render_prompt(agent, inputs, by_label))
    return await _ask(agent, neutral_inputs(inputs), blank, rest, version, caller, floor, None, {}, None, ahead)


def expected_tokens(agent: Agent, inputs: Mapping[str, str], lines: Sequence[Offered]) -> float:
    """About how many tokens a judgement takes, with the question without content before it."""
    by_label = dict(zip(LABELS, lines, strict=False))
    blank = {label: Offered(line.id, NEUTRAL) for label, line in by_label.items()}
    asked = (render_prompt(agent, inputs, by_label), render_prompt(agent, neutral_inputs(inputs), blank))
    return sum(map(_tokens, asked))


def _tokens(prompt: Prompt) -> float:
    return (len(prompt.system) + len(prompt.user)) / CHARS_PER_TOKEN + AROUND


async def _ask(
    agent: Agent,
    inputs: Mapping[str, str],
    by_label: Mapping[str, Offered],
    template: Template,
    version: str,
    caller: Caller,
    floor: str | None,
    priors: Choices | None,
    own: Mapping[str, Choices],
    problem: str | None,
    ahead: float = 0.0,
) -> Answer:
    task = Task(
        agent=agent.role, node=caller.node,
        prompt=render_prompt(agent, inputs, by_label, problem),
        prompt_version=version,
        template=template,
        floor=max((one for one in (agent.floor, floor, caller.floor) if one), key=PRECISIONS.index),
        deadline=caller.timeout, seed=caller.seed,
        value=(caller.values or {}).get(agent.role, agent.value),
        tenant=caller.tenant,
        priors=priors,
        background=caller.background,
        why=caller.why,
        budget=caller.budget,
        priors_at=own,
        ahead=ahead,
        critical=agent.role in caller.critical,
    )  # fmt: skip
    return await caller.broker.run(task, caller.account, run_id=caller.run_id)


def render_prompt(
    agent: Agent, inputs: Mapping[str, str], by_label: Mapping[str, Offered], problem: str | None = None
) -> Prompt:
    """An agent's prompt about this material; `problem` is what was wrong with its last answer."""
    lines = "\n".join(f"{label}: {' '.join(line.text.split())}" for label, line in by_label.items())
    material = {name: _FENCE.sub(" ", text) for name, text in {**inputs, "evidence": lines}.items()}
    user = _templates().get_template(f"{agent.prompt}.md.j2").render(material)
    if problem is not None:
        user += f"\nYour last answer was invalid: {problem}"
    return Prompt(_templates().get_template("system.md.j2").render(), user)


def _json_of(opinion: Opinion) -> dict[str, Any]:
    return {} if opinion.judgement is None else opinion.judgement.model_dump(mode="json")


def _miscited(judged: BaseModel, labels: Mapping[str, str]) -> str | None:
    """What is wrong with a judgement's citations: a letter that its field was not offered."""
    for field, letters in labels.items():
        for label in getattr(judged, field):
            if len(label) != 1 or label not in letters:
                return f"{field}: {label!r} was not offered"
    return None


def _opinion(
    agent: Agent[J_co],
    judged: J_co,
    answer: Answer,
    by_label: Mapping[str, Offered],
    calls: list[str],
    version: str,
    calibration: Mapping[str, FieldCalibration],
) -> Opinion[J_co]:
    """The validated judgement with letters replaced by evidence ids, and its probabilities calibrated."""
    cites = {field: tuple(by_label[label].id for label in getattr(judged, field)) for field in pick_fields(agent)}
    choices = {
        field: tempered(found, calibration[field].temperature) if field in calibration else dict(found)
        for field, found in answer.choices.items()
    }
    for field in cites:
        choices[field] = {by_label[label].id: p for label, p in choices[field].items()}
    return Opinion(
        agent=agent.role,
        status="judged",
        judgement=judged.model_copy(update=cites),
        choices=choices,
        calls=calls,
        backend=answer.offer.name,
        precision=answer.offer.precision,
        prompt_version=version,
    )


def prompt_version(agent: Agent) -> str:
    """The version a trace records: 12 hex digits of sha256 over the shared system prompt and the role's own."""
    data = b"".join((PROMPTS / name).read_bytes() for name in ("system.md.j2", f"{agent.prompt}.md.j2"))
    return hashlib.sha256(data).hexdigest()[:12]


def labels_of(agent: Agent, offered: Mapping[str, Sequence[object]]) -> dict[str, str]:
    """For each citing field the letters of its own lines; letters run on from field to field."""
    labels: dict[str, str] = {}
    start = 0
    for field in pick_fields(agent):
        labels[field] = LABELS[start : start + len(offered[field])]
        start += len(offered[field])
    return labels


def pick_fields(agent: Agent) -> list[str]:
    """The fields of an agent's judgement that cite evidence."""
    return [name for name, field in agent.judgement.model_fields.items() if field.annotation == tuple[str, ...]]


def neutral_inputs(inputs: Mapping[str, str]) -> dict[str, str]:
    return {name: NEUTRAL if text else "" for name, text in inputs.items()}


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(PROMPTS), undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True
    )

"""What evidence moves a judgement: recorded judgements asked again without one line, and held to what they cited.

Every call goes through the broker, in the background, under node `explain` of the run that is explained: all of it is
on record, and nothing that is on record is asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from finllm.agents.agent import Caller
from finllm.agents.removal import EvidenceLines, evidence_lines, matched
from finllm.errors import BackendError, BudgetExceeded
from finllm.graphs.state import State
from finllm.memory.ledger import Ledger
from finllm.scheduler.filling import Choices, best
from finllm.scheduler.record import Entry
from finllm.scheduler.task import Prompt, Task
from finllm.scheduler.template import Choose, Pick, Template, part_of, template_from

NODE = "explain"
"""The node under which an explanation's calls are on record."""
CITES = "because"
"""The field of a judgement that cites; the stress-tester's picks are its judgement itself, and are not tested."""
AT_ONCE = 16
"""Calls under way together; a call's time runs from when it is handed over."""


@dataclass(frozen=True)
class Cited:
    """A recorded judgement that cites evidence. `about`: the source it is of, if it is of one.

    `ids`: the evidence row behind each letter that was offered; `chosen`: the letters cited; `template`: all fields but
    citations, `plain`: of these the ones that are asked whatever the others say.
    """

    agent: str
    about: str | None
    call: Entry
    neutral: Entry
    lines: EvidenceLines
    neutral_lines: EvidenceLines
    ids: Mapping[str, str]
    chosen: tuple[str, ...]
    template: Template
    plain: Template

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Each cited line with one that was not."""
        return matched(self.lines, self.chosen)


@dataclass(frozen=True)
class Moved:
    """What a removal did. `choices`: the probabilities without the line, of every field.

    `changed`: fields with another chosen value (before, after); `distance`: total variation distance (0 to 1), mean
    over fields. Both are of the fields that are asked whatever the others say.
    """

    choices: Choices
    changed: Mapping[str, tuple[str, str]]
    distance: float


@dataclass
class Influence:
    """A judgement with what came of asking it again.

    `alone`: each line's removal, as the agent was asked; `noise`: how far the same question moved when it was asked
    again. `mover`: the line whose removal moved the probabilities most, and its partner; `again`: both removals on
    `again_on`, another precision, with the evidence the other way round, so that they are tested where they were not
    chosen. `unanswered` counts what got no answer.
    """

    judged: Cited
    noise: float | None = None
    base: Choices | None = None
    alone: dict[str, Moved] = field(default_factory=dict)
    mover: tuple[str, str] | None = None
    again: dict[str, Moved] = field(default_factory=dict)
    again_on: str | None = None
    unanswered: int = 0

    def cited_pairs(self) -> list[tuple[Moved, Moved]]:
        """Removals of a cited line, each with its partner's."""
        found = self.alone
        return [(found[one], found[other]) for one, other in self.judged.pairs if one in found and other in found]

    def mover_pairs(self) -> list[tuple[Moved, Moved]]:
        """Removal of the line that moved the judgement most, with its partner's, both where it was not chosen."""
        pairs = [self.mover] if self.mover else []
        return [(self.again[one], self.again[other]) for one, other in pairs if {one, other} <= self.again.keys()]


def cited_judgements(state: State, ledger: Ledger) -> list[Cited]:
    """The judgements that the result rests on and that cite: each agent's newest, the sanity-checker's of each source.

    One whose texts hide where its lines are is left out.
    """
    newest = {(opinion["agent"], opinion.get("about")): opinion for opinion in state.get("opinions", [])
              if opinion["judgement"] is not None and CITES in opinion["judgement"]}  # fmt: skip
    found: dict[str, Cited] = {}
    for (agent, about), opinion in newest.items():
        call, neutral = ledger.lookup(opinion["calls"][-1]), ledger.lookup(opinion["calls"][0])
        if call is None or neutral is None:
            continue
        template = template_from(call.request["template"])
        labels = "".join(next((s.labels for s in template if isinstance(s, Pick) and s.field == CITES), ()))
        lines = evidence_lines(Prompt(**call.request["prompt"]), labels)
        blank = evidence_lines(Prompt(**neutral.request["prompt"]), labels)
        ids = dict(zip(labels, opinion["choices"][CITES], strict=False))
        if lines is None or blank is None or len(ids) != len(labels):
            continue
        fields = [step for step in template if isinstance(step, Choose)]
        asked = part_of(template, [step.field for step in fields])
        plain = part_of(template, [step.field for step in fields if step.unless is None])
        chosen = tuple(label for label, id in ids.items() if id in opinion["judgement"][CITES])
        found.setdefault(
            call.key, Cited(agent, about, call, neutral, lines, blank, ids, chosen, asked, plain)
        )  # two sources with the same text are one question
    return list(found.values())


def questions(judged: Sequence[Cited]) -> int:
    """How many questions these judgements are asked at most."""
    return sum(1 + len(one.ids) + 4 for one in judged)


class Asking:
    """Asks judgements again, within `calls` to models and the budget of the caller's account.

    `asked` and `reused` count answers from models and from the ledger, `left` the questions that the bound left out.
    `tell` hears of each that is settled.
    """

    def __init__(
        self, caller: Caller, precisions: Sequence[str], *, calls: int, tell: Callable[[], None] = lambda: None
    ) -> None:
        self._caller = replace(caller, node=NODE)
        self._room = asyncio.Semaphore(AT_ONCE)
        self._precisions = precisions
        self._calls = calls
        self._tell = tell
        self.asked = self.reused = self.left = 0
        self.failures: set[str] = set()

    async def influence(self, judged: Cited) -> Influence:
        """Everything that is asked about one judgement. What gets no answer is counted, and changes nothing else."""
        found = Influence(judged)
        await self._alone(found)
        await self._again(found)
        return found

    async def _alone(self, found: Influence) -> None:
        judged, template = found.judged, found.judged.template
        priors, precision = judged.call.request["priors"], judged.call.request["precision"]
        paired = [label for pair in judged.pairs for label in pair]
        order = list(dict.fromkeys([*paired, *judged.ids]))
        base, *removed = await asyncio.gather(
            self._ask(judged, template, judged.lines.prompt, priors, precision),
            *(self._ask(judged, template, judged.lines.without(label), priors, precision) for label in order),
        )
        found.unanswered += [base, *removed].count(None)
        if base is None:
            return
        found.base = base
        found.noise = distance(judged.plain, judged.call.response["choices"], base)
        found.alone = _all_moved(judged.plain, base, order, removed)

    async def _again(self, found: Influence) -> None:
        judged = found.judged
        if not judged.ids.keys() <= found.alone.keys():
            return
        ranked = sorted(found.alone, key=lambda label: (-found.alone[label].distance, label))
        pairs = matched(judged.lines, ranked[:1])
        if not pairs:
            return
        lines, blank, plain = judged.lines.reversed(), judged.neutral_lines.reversed(), judged.plain
        found.mover, found.again_on = pairs[0], self._other(judged.call.request["precision"])
        neutral = await self._ask(judged, plain, blank.prompt, None, found.again_on)
        if neutral is None:
            found.unanswered += 4
            return
        base, *removed = await asyncio.gather(
            self._ask(judged, plain, lines.prompt, neutral, found.again_on),
            *(self._ask(judged, plain, lines.without(label), neutral, found.again_on) for label in found.mover),
        )
        found.unanswered += [base, *removed].count(None)
        if base is not None:
            found.again = _all_moved(plain, base, found.mover, removed)

    def _other(self, precision: str) -> str:
        """The finest other precision than this one, where there is another."""
        return next((one for one in self._precisions if one != precision), precision)

    async def _ask(
        self, judged: Cited, template: Template, prompt: Prompt, priors: Choices | None, precision: str
    ) -> Choices | None:
        """A judgement's probabilities at this prompt, from the ledger or a model of this precision; None: no answer."""
        asked, caller = judged.call.request, self._caller
        task = Task(
            agent=judged.agent, node=NODE, prompt=prompt, prompt_version=asked["prompt_version"], template=template,
            floor=precision, deadline=caller.timeout, seed=asked["seed"], value=0.0, priors=priors, background=True,
        )  # fmt: skip
        async with self._room:
            try:
                return await self._answer(task)
            finally:
                self._tell()

    async def _answer(self, task: Task) -> Choices | None:
        if self.asked >= self._calls:
            self.left += 1
            return None
        self.asked += 1
        caller = self._caller
        try:
            answer = await caller.broker.run(task, caller.account, run_id=caller.run_id)
        except BudgetExceeded:
            self.asked -= 1
            self.left += 1
            return None
        except BackendError as error:
            self.failures.add(error.message)
            return None
        if answer.reused:
            self.asked -= 1
            self.reused += 1
        return answer.choices


def _all_moved(
    template: Template, base: Choices, labels: Sequence[str], removed: Sequence[Choices | None]
) -> dict[str, Moved]:
    return {
        label: moved(template, base, choices)
        for label, choices in zip(labels, removed, strict=True)
        if choices is not None
    }


def moved(template: Template, before: Choices, after: Choices) -> Moved:
    """What changed from one answer to another in the template's fields."""
    chosen = {one: (best(before[one]), best(after[one])) for one in _fields(template)}
    changed = {one: pair for one, pair in chosen.items() if pair[0] != pair[1]}
    return Moved(after, changed, distance(template, before, after))


def distance(template: Template, before: Choices, after: Choices) -> float:
    """Mean total variation distance (0 to 1) over the template's fields."""
    apart = [
        sum(abs(before[one].get(value, 0.0) - after[one].get(value, 0.0)) for value in {*before[one], *after[one]}) / 2
        for one in _fields(template)
    ]
    return sum(apart) / len(apart) if apart else 0.0


def _fields(template: Template) -> list[str]:
    return [step.field for step in template if isinstance(step, Choose)]

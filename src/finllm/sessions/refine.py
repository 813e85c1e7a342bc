"""Verifies a finished report at the deep tier; where a judgement differs, makes a new version of the run.

Version 1 of a run is the run. A draft asks the same at the precision of the deep tier, as background work; whatever
was asked before is answered from the ledger. Where its judgements are the same, the newest version is confirmed; where
one is not, the draft becomes the next version, by compare-and-swap on (run, version): the ledger keeps one row a key,
and the draft that finds another there is stale, dropped, on record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from finllm.agents.agent import pick_fields
from finllm.agents.roles import AGENTS
from finllm.agents.sanity_checker import SANITY_CHECKER
from finllm.desk.desk import Desk
from finllm.desk.request import RunRequest
from finllm.errors import InputError
from finllm.graphs.flow import run_stress_test
from finllm.graphs.rows import OpinionRow
from finllm.graphs.state import AfterIntake
from finllm.memory.answers import HUMAN, answer_entry
from finllm.memory.ledger import Ledger
from finllm.memory.versions import newest_version, note_draft, swap_version, waiting_drafts
from finllm.review.diff import flat
from finllm.review.replay import Replayed, replay
from finllm.scheduler.placement.task import meets_floor


@dataclass(frozen=True)
class Revision:
    """A judgement that the deep tier makes otherwise: an agent's field, what it was and what it is."""

    agent: str
    field: str
    was: str
    now: str

    def __str__(self) -> str:
        return f"{self.agent}, {self.field}: {self.was} → {self.now}"


@dataclass(frozen=True)
class Refined:
    """What came of verifying `version` of a run, held by the run `base`, with the run `draft` at `precision`.

    `committed`: the draft is version + 1; `confirmed`: no judgement differs; `dropped`: another draft became the next
    version meanwhile, which is `newest`; `waiting`: the draft asks a person first. `revisions`: what differs, the node
    of the first being where the run forks.
    """

    run_id: str
    version: int
    base: str
    draft: str
    precision: str
    outcome: Literal["confirmed", "committed", "dropped", "waiting"]
    newest: str
    revisions: tuple[Revision, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


async def refine_run(run_id: str, desk: Desk, draft_id: str) -> Refined:
    """Verify the newest version of a run that ended, in a draft run of its own.

    Errors: InputError for a run that is not known, has no report or is at the deep tier's precision already;
    ReplayRefused where an input, a prompt or the weights changed since; and those of `run_stress_test`. The newest
    version stands until a draft is whole.
    """
    ledger, precision = desk.ledger, desk.settings.deep_precision
    version, base = newest_version(run_id, ledger)
    row = ledger.run(base)
    if row is None:
        raise InputError(f"no run {run_id!r}", fix="'finllm runs list' shows those on record")
    if row.result is None:
        raise InputError(f"run {base!r} is {row.status}: it has no report to verify", fix=f"finllm resume {base}")
    request = RunRequest.model_validate(row.request)
    if request.floor is not None and meets_floor(request.floor, precision):
        raise InputError(f"version {version} of run {run_id!r} was made at {request.floor}, and there is nothing finer",
                         fix="name a finer rung in FINLLM_DEEP_PRECISION")  # fmt: skip
    before = await replay(base, desk)
    for answered in (base, *waiting_drafts(run_id, ledger)):
        _same_answers(answered, draft_id, ledger)
    draft = await run_stress_test(draft_id, request.model_copy(update={"floor": precision}), desk, background=True)
    told = (run_id, version, base, draft_id, precision)
    if draft.status == "waiting":
        note_draft(run_id, version, draft_id, {"verdict": "waiting"}, ledger)
        return Refined(*told, "waiting", base, ())
    after = await replay(draft_id, desk)
    revisions = tuple(_revisions(_opinions(before), _opinions(after)))
    if not revisions:
        note_draft(run_id, version, draft_id, {"verdict": "confirmed"}, ledger)
        return Refined(*told, "confirmed", base, ())
    said = {"run": draft_id, "agent": revisions[0].agent, "revisions": [asdict(one) for one in revisions]}
    holder = swap_version(run_id, version + 1, said, ledger)
    if holder == draft_id:
        return Refined(*told, "committed", draft_id, revisions)
    note_draft(run_id, version, draft_id, {"verdict": "dropped", "kept": holder}, ledger)
    return Refined(*told, "dropped", holder, revisions)


def _same_answers(answered: str, draft: str, ledger: Ledger) -> None:
    """What a person answered to one run is answered to the draft, where it asks the same."""
    for use in ledger.uses(answered, HUMAN):
        question = use.entry.request
        entry = answer_entry(draft, question, use.entry.response, use.entry.actor)
        ledger.record(entry, run_id=draft, node=use.node)


def _opinions(replayed: Replayed) -> tuple[OpinionRow, ...]:
    return AfterIntake.model_validate(replayed.state).opinions


def _revisions(before: Iterable[OpinionRow], after: Iterable[OpinionRow]) -> Iterable[Revision]:
    """The fields that differ, in the order in which the agents judged; what they cite is no judgement."""
    was, now = _judged(before), _judged(after)
    for agent, number in dict.fromkeys((*was, *now)):
        one, other = was.get((agent, number), {}), now.get((agent, number), {})
        name = agent if number == 1 else f"{agent} #{number}"
        for field in dict.fromkeys((*one, *other)):
            if one.get(field) != other.get(field):
                yield Revision(name, field, one.get(field, "not judged"), other.get(field, "not judged"))


def _judged(opinions: Iterable[OpinionRow]) -> dict[tuple[str, int], dict[str, str]]:
    """What each agent judged in the end, by dotted field; the sanity-checker about each source."""
    cites = {agent.role: set(pick_fields(agent)) for agent in AGENTS}
    seen = Counter[str]()
    found: dict[tuple[str, int], dict[str, str]] = {}
    for opinion in opinions:
        agent = opinion.agent
        seen[agent] = seen[agent] + 1 if agent == SANITY_CHECKER.role else 1
        judgement = opinion.judgement
        found[agent, seen[agent]] = flat(judgement.model_dump(mode="json", exclude=cites[agent])) if judgement else {}
    return found

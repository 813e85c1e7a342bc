"""A new version beside the one that is served: it answers copies of calls, is compared, promoted, and taken back."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from finllm.agents.priors import priors_by
from finllm.errors import BackendError, InputError
from finllm.memory.entries import RecordedCall
from finllm.memory.ledger import Ledger
from finllm.memory.reading import UsedRow
from finllm.models.cards import AdapterCard
from finllm.models.served import Served, Version, change_served, current, read_served
from finllm.scheduler.backends import Backend, Request
from finllm.scheduler.calibration.measured import wilson
from finllm.scheduler.placement.task import key_of
from finllm.scheduler.record import CALL, Entry, EntryKind
from finllm.settings import Settings

SHADOW = EntryKind("shadow")
"""What a new version said to a copy of a call."""
DEPLOY = EntryKind("deploy")
"""A step of a deployment: shadow, promote or rollback."""
NODE = "deploy"
POLL = 0.2
"""s between two looks at the ledger for calls that came."""
Z95 = 1.959964


@dataclass(frozen=True)
class Beside:
    """A figure of both versions, with the 95 % interval of the difference, new less served (normal, paired)."""

    what: str
    unit: str
    served: float
    new: float
    low: float
    high: float


@dataclass(frozen=True)
class Compared:
    """What copies of calls showed. `agreed`: fields that both chose alike, `low` to `high` its share's 95 % interval
    (Wilson); `sure` is the mean probability of what was chosen."""

    copies: int
    failed: int
    fields: int
    agreed: int
    low: float
    high: float
    figures: tuple[Beside, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Pair:
    fields: int
    agreed: int
    sure: tuple[float, float]
    seconds: tuple[float, float]
    joules: tuple[float, float] | None


def sampled(rows: Iterable[UsedRow], share: float, weights: str) -> Iterator[UsedRow]:
    """The share of the calls that is copied, by their keys: the same calls whoever asks. Those that judge, on the edge,
    by other weights."""
    for row in rows:
        entry = row.use.entry
        edge = entry.request["offer"]["tier"] == "edge" and entry.request.get("priors") is not None
        if edge and entry.request["weights_sha256"] != weights and int(entry.key[:8], 16) < share * 2**32:
            yield row


@dataclass(frozen=True)
class Shadow:
    """Answers copies of calls by the new version, in the background of whoever asks: it touches no run."""

    ledger: Ledger
    backend: Backend
    card: AdapterCard | None
    share: float

    async def copies(
        self, most: int, *, follow: float = 0.0, done: Callable[[int], None] = lambda _count: None
    ) -> Compared:
        """Answer copies of the newest calls on record, and of those that come within `follow` s; at most so many.

        Each is a row of the ledger, and is not asked again. Errors: RecordError.
        """
        weights, ends = self.backend.offer.weights_sha256, time.monotonic() + follow
        rows = self.ledger.written_after(0, CALL)
        last = self.ledger.last_use()
        waiting = list(sampled(reversed(rows), self.share, weights))[:most]
        pairs: list[_Pair] = []
        failed = 0
        while True:
            for row in waiting:
                pair = await self._copy(row)
                failed += pair is None
                pairs += [] if pair is None else [pair]
                done(len(pairs) + failed)
            if len(pairs) + failed >= most or time.monotonic() >= ends:
                return compared(pairs, failed)
            await asyncio.sleep(POLL)
            fresh = self.ledger.written_after(last, CALL)
            last = max([last, *(row.id for row in fresh)])
            waiting = list(sampled(fresh, self.share, weights))[: most - len(pairs) - failed]

    async def _copy(self, row: UsedRow) -> _Pair | None:
        call, offer = RecordedCall.of(row.use.entry), self.backend.offer
        about = {"call": call.key, "weights_sha256": offer.weights_sha256, "precision": offer.precision}
        key = key_of("shadow", about)
        entry = self.ledger.lookup(key)
        if entry is None:
            own = priors_by(self.card, call.agent, call.prompt_version)
            request = Request(call.prompt, call.steps(), {**(call.priors or {}), **own}, call.seed, background=True)
            try:
                said = await self.backend.generate(request)
            except BackendError as error:
                told: dict[str, Any] = {"failed": error.message}
            else:
                told = {"text": said.text, "choices": said.choices, "seconds": said.seconds,
                        "joules": None if said.joules is None else asdict(said.joules)}  # fmt: skip
            entry = Entry(key, SHADOW, offer.name, {**about, "agent": call.agent}, told)
            self.ledger.record(entry, run_id=row.run_id, node=NODE)
        return None if "failed" in entry.response else _pair(call, row.use.entry.response, entry.response)


def _pair(call: RecordedCall, served: dict[str, Any], new: dict[str, Any]) -> _Pair:
    both = [name for name, odds in call.choices.items() if odds and new["choices"].get(name)]
    alike = sum(_top(call.choices[name]) == _top(new["choices"][name]) for name in both)

    def sure(choices: dict[str, dict[str, float]]) -> float:
        return fmean([max(choices[name].values()) for name in both] or [0.0])

    was, now = (served.get("spent") or {}).get("joules"), new["joules"]
    joules = None if was is None or now is None else (float(was["value"]), float(now["value"]))
    return _Pair(len(both), alike, (sure(call.choices), sure(new["choices"])), (call.seconds, new["seconds"]), joules)


def compared(pairs: Sequence[_Pair], failed: int) -> Compared:
    """The figures of both versions side by side."""
    fields, agreed = sum(one.fields for one in pairs), sum(one.agreed for one in pairs)
    low, high = wilson(agreed / fields if fields else 0.0, fields)
    figures = [
        _beside("sure of what it chose", "probability", [one.sure for one in pairs]),
        _beside("latency, model time of a call", "s", [one.seconds for one in pairs]),
        _beside("energy of a call", "J", [one.joules for one in pairs if one.joules is not None]),
    ]
    return Compared(len(pairs), failed, fields, agreed, low, high, tuple(one for one in figures if one is not None))


def _beside(what: str, unit: str, pairs: Sequence[tuple[float, float]]) -> Beside | None:
    if not pairs:
        return None
    moved = [new - served for served, new in pairs]
    half = Z95 * stdev(moved) / math.sqrt(len(moved)) if len(moved) > 1 else math.inf
    middle = fmean(moved)
    return Beside(what, unit, fmean([one for one, _ in pairs]), fmean([one for _, one in pairs]),
                  middle - half, middle + half)  # fmt: skip


def _top(odds: dict[str, float]) -> str:
    return max(odds, key=lambda value: odds[value])


def stage(settings: Settings, version: Version, found: Compared, ledger: Ledger) -> Served:
    """Keep a version as the candidate.

    Errors: InputError for the one that is served already, or that answered no copy; RecordError.
    """
    if (version.sha256, version.adapter_sha256) == _digests(current(settings)):
        raise InputError(f"{version.words} is what is served", fix="deploy another model or adapter")
    if not found.copies:
        raise InputError(f"{version.words} has answered no copy of a call: nothing says how it compares",
                         fix="raise --shadow or --calls; without a call on record, run a scenario first")  # fmt: skip
    _noted(ledger, "shadow", {"version": version.model_dump(mode="json"), "compared": found.to_json()})
    return change_served(settings, lambda served: served.model_copy(update={"candidate": version}))


def promote(settings: Settings, ledger: Ledger) -> Served:
    """Serve the candidate from the next opening of the models on. One file is replaced: what runs ends as it began.

    Errors: InputError without a candidate, or where its files are no longer those that were compared; RecordError.
    """
    was = current(settings)

    def change(served: Served) -> Served:
        if served.candidate is None:
            raise InputError("there is no candidate to promote", fix="finllm deploy MODEL --shadow 20%")
        _same(served.candidate, settings)
        _noted(ledger, "promote", {"from": was.model_dump(mode="json"), "to": served.candidate.model_dump(mode="json")})
        before = (*served.before, served.served or was)
        return Served(served=served.candidate, before=before)

    return change_served(settings, change)


def rollback(settings: Settings, ledger: Ledger) -> Served:
    """Serve what was served before the last promotion. Errors: as `promote`."""

    def change(served: Served) -> Served:
        if not served.before:
            raise InputError("nothing was promoted that could be taken back", fix="finllm deploy status")
        *older, last = served.before
        _same(last, settings)
        _noted(ledger, "rollback", {"from": served.served and served.served.model_dump(mode="json"),
                                    "to": last.model_dump(mode="json")})  # fmt: skip
        return Served(served=last, before=tuple(older), candidate=served.served)

    return change_served(settings, change)


def _same(version: Version, settings: Settings) -> None:
    now = current(version.on(settings))
    if _digests(now) != (version.sha256, version.adapter_sha256):
        raise InputError(f"the files of {version.words} have changed since", fix="deploy it again with --shadow")


def _digests(version: Version) -> tuple[str, str | None]:
    return version.sha256, version.adapter_sha256


def _noted(ledger: Ledger, step: str, what: dict[str, Any]) -> None:
    about = {"step": step, "at_ns": time.time_ns(), **what}
    ledger.record(Entry(key_of("deploy", about), DEPLOY, NODE, about, {"done": step}), run_id=NODE, node=NODE)


def status(settings: Settings) -> dict[str, Any]:
    """What is served, what was, and what is a candidate, as JSON-able data."""
    served, now = read_served(settings), None
    with contextlib.suppress(InputError):
        now = current(settings).model_dump(mode="json")
    return {"answers": now, **served.model_dump(mode="json", exclude={"version"})}

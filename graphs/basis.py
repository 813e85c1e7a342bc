"""Digests (sha256) of a run's inputs, prompts, data, weights and states: kept in the ledger, compared by a replay."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from finllm import __version__
from finllm.agents.agent import PROMPTS
from finllm.desk.desk import Desk, RunContext
from finllm.desk.request import RunRequest
from finllm.errors import BackendError, InputError
from finllm.files import sha256_of_file
from finllm.graphs.rows import Json
from finllm.graphs.state import changed, digests_of, state_hash
from finllm.guardrails.injection import RULES_PATH
from finllm.guardrails.rumours import CARD
from finllm.memory.precedents import PRECEDENTS_PATH
from finllm.memory.reading import LedgerReader
from finllm.models.cards import AdapterCard
from finllm.scheduler.backends import Offer
from finllm.scheduler.placement.task import canonical, key_of
from finllm.scheduler.record import Entry, EntryKind
from finllm.tools.channels.table import TABLE_PATH as CHANNELS_PATH
from finllm.tools.data.factors import FACTOR_TABLE_PATH
from finllm.tools.data.market import NAMES_PATH, packaged_digests
from finllm.tools.data.sources import IMPORTED, imported_digests
from finllm.tools.evidence import sha256_of
from finllm.tools.pnl.outcome import ENGINE
from finllm.tools.pnl.size_table import SIZE_TABLE_PATH
from finllm.tools.words.lexical import WORDS_PATH

INPUTS = EntryKind("inputs")
"""Digests of what a run stands on."""
STATE = EntryKind("state")
"""The digest of a run's state after a node, and those of what the node found, channel by channel."""

SECOND, JUDGE, READER = "second opinion", "judge of instructions", "channel reader"
"""Under these names the digests of the classifiers stand among the data."""

_TABLES = {
    "tools/reading.yaml": WORDS_PATH,
    "tools/size_table.yaml": SIZE_TABLE_PATH,
    "tools/factors.yaml": FACTOR_TABLE_PATH,
    "tools/market/names.yaml": NAMES_PATH,
    "tools/channels/table.yaml": CHANNELS_PATH,
    "guardrails/injection.yaml": RULES_PATH,
    "models/heads/rumours.json": CARD,
}
"""Tables that the tools read, under the names that records know them by."""


class Weights(BaseModel):
    """A backend as it was offered, and where its weights file was, if it has one."""

    model_config = ConfigDict(frozen=True)

    offer: dict[str, Any]
    path: str | None

    def as_offer(self) -> Offer:
        return Offer.from_record(self.offer)


class Standing(BaseModel):
    """Digests (sha256) of everything that a run's state follows from.

    `request`: of the stored request; `files`: of the inputs, by path; `prompts`: of the prompt templates; `data`: of
    packaged and imported market data, tables, precedents, embedding weights, the second opinion and the reader of
    channels; `precision`: of the
    deep tier's floor; `engine`: the version of the P&L arithmetic (1 where a record has none); `card`: how the
    adapter's scores were calibrated, whole, so that a replay needs no file for it; `escalate`: the agents whose
    doubtful answers were asked for again.
    """

    model_config = ConfigDict(frozen=True)

    version: str
    request: str
    files: dict[str, str]
    prompts: dict[str, str]
    data: dict[str, str]
    weights: tuple[Weights, ...]
    precision: str
    escalate: tuple[str, ...] = ()
    card: AdapterCard | None = None
    pruned: AdapterCard | None = None
    engine: int = 1

    @property
    def imported(self) -> bool:
        """Whether data that was imported into the home was read."""
        return any(name.startswith(IMPORTED) for name in self.data)


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was: `what` names it, `was` and `now` are digests (or words)."""

    what: str
    was: str
    now: str

    def __str__(self) -> str:
        return f"{self.what} differs: it was {self.was[:12]}, it is {self.now[:12]}"


def standing_of(request: RunRequest, stored: Mapping[str, Any], desk: Desk) -> Standing:
    """What a run of this request, `stored` in the ledger, stands on at this desk, now."""
    return Standing(
        version=__version__,
        request=sha256_of(canonical(dict(stored))),
        files={file.path: file.sha256 for file in request.inputs},
        prompts=prompt_digests(PROMPTS),
        data=data_digests(desk),
        weights=tuple(Weights(offer=asdict(offer), path=offer.weights_file) for offer in desk.broker.offers),
        precision=desk.settings.deep_precision,
        escalate=tuple(sorted(desk.escalating)),
        card=desk.card,
        pruned=desk.pruned,
        engine=ENGINE,
    )


def prompt_digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of_file(path) for path in sorted(folder.glob("*.j2"))}


def data_digests(desk: Desk) -> dict[str, str]:
    """What the tools read besides the user's files, by name."""
    found = packaged_digests()
    found |= imported_digests(desk.settings.data_dir)
    found |= {name: sha256_of_file(path) for name, path in _TABLES.items()}
    found |= {PRECEDENTS_PATH.name: sha256_of_file(PRECEDENTS_PATH), "embedding weights": desk.embedder.digest}
    for name, one in ((SECOND, desk.second), (JUDGE, desk.injections), (READER, desk.channels)):
        if one is not None:
            with contextlib.suppress(BackendError):  # a run without one says so, and stands on none
                found[name] = one.digest
    return found


def recorded(run: RunContext) -> RunContext:
    """The run with what it stands on put on record, and each state's digest from here on.

    Errors: InputError for a run that was begun by another version of the engine: its two halves would not fit.
    """
    ledger = run.desk.ledger
    for begun in (Standing.model_validate(use.entry.response) for use in ledger.uses(run.run_id, "inputs")):
        if begun.engine != ENGINE:
            raise InputError(f"run {run.run_id!r} was begun by P&L engine {begun.engine}, and this is engine {ENGINE}",
                             fix="start it again with 'finllm run'")  # fmt: skip
    row = ledger.run(run.run_id)
    stored = row.request if row else run.request.model_dump(mode="json")
    standing = standing_of(run.request, stored, run.desk).model_dump(mode="json")
    about = {"run": run.run_id}
    entry = Entry(key_of("inputs", about | {"standing": standing}), INPUTS, "finllm", about, standing)
    ledger.record(entry, run_id=run.run_id, node="start")

    def watch(node: str, before: Json, after: Json) -> None:
        told = {"run": run.run_id, "node": node, "before": state_hash(before)}
        found = {"sha256": state_hash(after), "channels": digests_of(changed(before, after))}
        ledger.record(Entry(key_of("state", told | found), STATE, "finllm", told, found), run_id=run.run_id, node=node)

    return replace(run, watch=watch)


def on_record(channels: Json, run_id: str, ledger: LedgerReader) -> bool:
    """Whether all that a checkpoint holds is what some node of the run was recorded to have found."""
    known: dict[str, set[str]] = {}
    for use in ledger.uses(run_id, STATE):
        for name, digests in use.entry.response.get("channels", {}).items():
            known.setdefault(name, set()).update(digests)
    return all(known.get(name, set()).issuperset(digests) for name, digests in digests_of(channels).items())


def differences(was: Standing, request: Mapping[str, Any], desk: Desk) -> Iterator[Difference]:
    """Everything that is not as it was when the run began: inputs, prompts, data, weights. Reads every file whole.

    An input whose content the record holds and whose file is gone is not told here: see `not_compared`. Data that was
    imported or added after the run changes nothing: it is computed again without it.
    """
    now = sha256_of(canonical(dict(request)))
    if was.request != now:
        yield Difference("the request on record", was.request, now)
    prices = {file["path"] for file in request.get("prices", ())}
    for path, digest in was.files.items():
        found = _digest(Path(path))
        if found != digest and (found != "gone" or path in prices):
            yield Difference(f"input file {path!r}", digest, found)
    yield from _compare("prompt", was.prompts, prompt_digests(PROMPTS))
    seen = {name: digest for name, digest in data_digests(desk).items()
            if not name.startswith(IMPORTED) or name in was.data}  # fmt: skip
    had = {name: digest for name, digest in was.data.items() if name != READER}  # what it said is on record, whole
    yield from _compare("data", had, {name: digest for name, digest in seen.items() if name != READER})
    for one in was.weights:
        if one.path is not None and (found := _digest(Path(one.path))) != one.offer["weights_sha256"]:
            yield Difference(f"weights of {one.offer['name']!r} ({one.path})", one.offer["weights_sha256"], found)


def not_compared(was: Standing, request: Mapping[str, Any]) -> list[str]:
    """Input files that are gone: their content is in the record, so a replay goes on without them, and says so."""
    prices = {file["path"] for file in request.get("prices", ())}
    return [path for path in was.files if path not in prices and _digest(Path(path)) == "gone"]


def _compare(what: str, was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Difference]:
    for name in sorted({*was, *now}):
        if was.get(name) != now.get(name):
            yield Difference(f"{what} {name!r}", was.get(name, "absent"), now.get(name, "gone"))


def _digest(path: Path) -> str:
    try:
        return sha256_of_file(path)
    except OSError:
        return "gone"

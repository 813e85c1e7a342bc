"""The channel reader in a run: each text read once, on record before anybody sees it, then all of them together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from finllm.agents.pooling import ByChannels
from finllm.desk.channels import ReadsChannels, SaidOfText
from finllm.desk.desk import Desk, RunContext
from finllm.errors import BackendError
from finllm.events import Noted
from finllm.graphs.rows import ChannelRow, HeardSource, ThroughChannels
from finllm.guardrails.provenance import HEARSAY, REJECTED
from finllm.scheduler.placement.task import canonical, key_of
from finllm.scheduler.record import Entry, EntryKind
from finllm.tools.channels import Opened, Told, together, with_columns
from finllm.tools.evidence import EvidenceTable, Source, sha256_of

CHANNELS = EntryKind("channels")
"""What the channel reader said of a text."""
LONGEST = 6000
"""Characters of each text that are read."""
DIGITS = 4
"""Decimals of a probability that are kept: the rest differs from one machine to another."""
SHOWN_DIGITS = 3
"""Decimals of the probability of a channel by all texts, in its row of evidence and in all that follows from it."""
OWN_FIELDS = 2.0
"""How much the event in its teller's own words counts for kind, region, stance and severity, each source counting 1."""
_OPENED = TypeAdapter(tuple[Opened, ...])


@dataclass(frozen=True)
class TextRead:
    """What the reader said of one text."""

    opened: tuple[Opened, ...]
    fields: dict[str, dict[str, float]]

    @property
    def heard(self) -> ByChannels:
        """The text by itself, as an event without sources."""
        found = together(self.opened)
        return ByChannels([_shown(one.opened) for one in found], fields_together([self]))


def as_recorded(said: SaidOfText) -> TextRead:
    """What the reader says, in the digits that are kept of it."""
    return TextRead(tuple(_rounded(one) for one in said.opened), {n: _shares(odds) for n, odds in said.fields.items()})


def read_text(text: str, reader: ReadsChannels, desk: Desk, *, run_id: str, node: str) -> TextRead:
    """The channels of a text: from the record where the same reader has read it, else read and written down first.

    Errors: BackendError where it has to be read and cannot be; RecordError.
    """
    about = _about(text, reader.digest)
    key = _key(about)
    entry = desk.ledger.lookup(key)
    if entry is not None:
        desk.ledger.used(key, run_id=run_id, node=node)
        return _read_of(entry)
    said = as_recorded(reader.read([text[:LONGEST]])[0])  # one by one: a batch would change the last digits
    response = {"opened": [one.model_dump(mode="json") for one in said.opened], "fields": said.fields}
    entry = Entry(key, CHANNELS, "channel reader", about, response)
    desk.ledger.record(entry, run_id=run_id, node=node)
    return _read_of(entry)


def through_channels(
    run: RunContext, sources: Sequence[HeardSource], table: EvidenceTable
) -> ThroughChannels | None:  # fmt: skip
    """The event and the sources that the checks let through, read together, with a row of evidence for each channel;
    None where no reader is at hand, which is said.
    """
    reader = run.desk.channels
    if reader is None:
        return None
    kept = heard_of(sources)
    texts = [run.request.scenario.narrative, *(source.text for source in kept)]
    try:
        read = [read_text(text, reader, run.desk, run_id=run.run_id, node="intake") for text in texts]
        digest = reader.digest
        if reader.note:
            run.desk.bus.emit(Noted(level="warning", message=reader.note))
    except BackendError as error:
        told = f"without transmission channels, by the language model alone: {error.message}; {error.fix}"
        run.desk.bus.emit(Noted(level="warning", message=told))
        return None
    found = together(read[0].opened, [one.opened for one in read[1:]])
    rows = tuple(_row(one, texts, kept, digest, run, table) for one in found)
    columns = run.request.scenario.channels
    return ThroughChannels(digest=digest, rows=rows, fields=fields_together(read), columns=columns)


def without_source(
    before: ThroughChannels, run: RunContext, sources: Sequence[HeardSource], left_out: str | None
) -> ByChannels | None:  # fmt: skip
    """What the record says of the event without one of its sources; None where it does not hold every text."""
    texts = [run.request.scenario.narrative, *(one.text for one in heard_of(sources) if one.id != left_out)]
    entries = [run.desk.ledger.lookup(_key(_about(text, before.digest))) for text in texts]
    told = [entry for entry in entries if entry is not None]
    return heard_again(told, before.columns) if len(told) == len(texts) else None


def heard_again(entries: Sequence[Entry], columns: Mapping[str, Mapping[str, int]]) -> ByChannels | None:
    """What the reader said of the event and its sources, in that order, put together again; None without entries."""
    if not entries:
        return None
    read = [_read_of(entry) for entry in entries]
    found = together(read[0].opened, [one.opened for one in read[1:]])
    return ByChannels([_shown(one.opened) for one in found], fields_together(read), with_columns(columns))


def heard_of(sources: Sequence[HeardSource]) -> list[HeardSource]:
    """The sources that the checks let through."""
    return [s for s in sources if s.evidence is not None and s.verdict not in REJECTED and s.verdict != HEARSAY]


def fields_together(read: Sequence[TextRead]) -> dict[str, dict[str, float]]:
    """The mean odds of each field over the texts, the first counting `OWN_FIELDS`."""
    weights = [OWN_FIELDS, *(1.0 for _one in read[1:])]
    total = sum(weights)
    return {
        name: {value: round(sum(w * one.fields.get(name, {}).get(value, 0.0) for w, one in
                                zip(weights, read, strict=True)) / total, DIGITS) for value in odds}
        for name, odds in read[0].fields.items()
    }  # fmt: skip


def _row(
    told: Told, texts: Sequence[str], kept: Sequence[HeardSource], digest: str, run: RunContext, table: EvidenceTable
) -> ChannelRow:  # fmt: skip
    at = told.texts[0]
    one = _shown(told.opened)
    words = " ".join(texts[at][one.start : one.end].split())
    first = None if at == 0 else kept[at - 1]
    speak = [kept[text - 1] for text in told.texts if text]
    read_of = ", ".join((*(["the event"] if 0 in told.texts else []), *(str(source.evidence) for source in speak)))
    evidence = table.add(
        one.probability, "probability", entity=one.channel, what=f"channel, {one.state}", period="this event",
        as_of=run.request.as_of, source=_place(texts[0], one) if first is None else _within(first, one, table),
        formula=f"channel reader {digest[:12]} over {read_of}",
    )  # fmt: skip
    others = tuple(source.id for source in speak if first is None or source.id != first.id)
    return ChannelRow(opened=one, evidence=evidence, words=words, source=first.id if first else None, others=others)


def _place(narrative: str, one: Opened) -> Source:
    """A sentence of the event as the scenario tells it."""
    pointer = f"characters {one.start}–{one.end}"
    return Source(uri="scenario:narrative", sha256=sha256_of(narrative), pointer=pointer)


def _within(source: HeardSource, one: Opened, table: EvidenceTable) -> Source:
    """A sentence of a source, as it is read, behind what the rules cut."""
    assert source.evidence is not None
    whole = table[source.evidence].source
    assert whole is not None
    return Source(uri=whole.uri, sha256=whole.sha256, pointer=f"characters {one.start}–{one.end} of what is read")


def _about(text: str, digest: str) -> dict[str, str]:
    return {"reader": digest, "text_sha256": sha256_of(text[:LONGEST])}


def _key(about: Mapping[str, str]) -> str:
    return key_of("channels", about)


def _read_of(entry: Entry) -> TextRead:
    """What an entry says, in the order that records are kept in: sums over it are then the same to the last digit."""
    kept = json.loads(canonical(entry.response))
    return TextRead(_OPENED.validate_python(kept["opened"]), kept["fields"])


def _shown(one: Opened) -> Opened:
    return one.model_copy(update={"probability": round(one.probability, SHOWN_DIGITS)})


def _rounded(one: Opened) -> Opened:
    states: dict[Any, float] = dict(_shares(one.states))
    state = max(states, key=lambda name: states[name]) if states else one.state
    return one.model_copy(update={"probability": round(one.probability, DIGITS), "states": states, "state": state})


def _shares(odds: Mapping[Any, float]) -> dict[Any, float]:
    return {value: round(p, DIGITS) for value, p in odds.items()}

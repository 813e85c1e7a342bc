"""A source's text opened whole: the span that a row stands on marked, and what the sanitiser cut, in its place."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

from pydantic import BaseModel, ConfigDict

from finllm.desk.request import RunRequest
from finllm.errors import RecordAltered
from finllm.guardrails.edited_text import Traced
from finllm.guardrails.sanitise import Removal, read_traced
from finllm.memory.texts import Texts
from finllm.tools.evidence import Evidence, sha256_of

NARRATIVE_URI = "scenario:narrative"
_SPAN = re.compile(r"characters (?P<start>\d+)–(?P<end>\d+)(?P<read> of what is read)?")
_OVER_EVENT = re.compile(r"\bover the (?:narrative|event)\b")
_SUSPECTED = "suspected: "
"""How the record begins what the judge of instructions cut; of a long one it holds the beginning."""

Kept = Literal["kept", "on record", "missing"]
"""Where a text was found: under its digest among the texts of the home; in the run's request alone; or nowhere."""


class Piece(BaseModel):
    """A part of a text, in order: `marked` where the row stands on it; `cut` says by which kind of rule it was taken
    out before anybody read it, and `rule` by which."""

    model_config = ConfigDict(frozen=True)

    text: str
    marked: bool = False
    cut: str | None = None
    rule: str | None = None


class WholeText(BaseModel):
    """A source's text as it was published, in pieces that add up to it.

    `start` and `end`: the marked characters of it, None where the place cannot be told; `read`: what was left for the
    agents to read. `unchanged`: the bytes found have the digest that the row names. `cuts_recorded`: what is cut now is
    what the run recorded; None where nothing was sanitised (the event as its teller tells it).
    """

    model_config = ConfigDict(frozen=True)

    id: str
    publisher: str
    published_at: str
    uri: str
    sha256: str
    kept: Kept
    unchanged: bool
    start: int | None = None
    end: int | None = None
    pieces: tuple[Piece, ...] = ()
    read: str = ""
    cuts_recorded: bool | None = None
    why: str | None = None

    @property
    def characters(self) -> int:
        return sum(len(piece.text) for piece in self.pieces)

    @property
    def span(self) -> str:
        """The marked part, with what was cut from it."""
        return "".join(piece.text for piece in self.pieces if piece.marked)


def whole_text(row: Evidence, request: RunRequest, removed: Sequence[str] | None, texts: Texts) -> WholeText | None:
    """The text that a row was read from, or the event where it is over all of that; None for one of something else.

    `removed`: what the report says was cut from the source, None where it says nothing of it.
    """
    source = row.source
    if source is None and _OVER_EVENT.search(row.formula or ""):
        return _event_whole(request.scenario.narrative, texts)
    if source is None or (place := _SPAN.fullmatch(source.pointer)) is None:
        return None
    told = next((one for one in request.scenario.sources
                 if one.url == source.uri and sha256_of(one.text) == source.sha256), None)  # fmt: skip
    event = source.uri == NARRATIVE_URI
    held = request.scenario.narrative if event else told.text if told else None
    text, kept, why = _found(source.sha256, held, texts)
    found = WholeText(
        id="the event" if event else told.id if told else row.entity, publisher=told.publisher if told else "",
        published_at=told.published_at.isoformat() if told else "", uri=source.uri, sha256=source.sha256, kept=kept,
        unchanged=text is not None, why=why,
    )  # fmt: skip
    if text is None:
        return found
    traced, cuts = (Traced.of(text), ()) if event else read_by_agents(text, request.as_of, removed or ())
    span = _span(place, traced, len(text))
    return found.model_copy(update={
        "start": span[0] if span else None, "end": span[1] if span else None, "read": traced.text,
        "pieces": pieces_of(text, span, cuts),
        "cuts_recorded": None if event or removed is None else _recorded(cuts, removed),
    })  # fmt: skip


def _event_whole(told: str, texts: Texts) -> WholeText:
    """The event as its teller tells it, for a row that is over all of it."""
    digest = sha256_of(told)
    text, kept, why = _found(digest, told, texts)
    return WholeText(
        id="the event", publisher="", published_at="", uri=NARRATIVE_URI, sha256=digest, kept=kept, why=why,
        unchanged=text is not None, read=text or "", pieces=pieces_of(text or "", None, ()),
    )  # fmt: skip


def read_by_agents(text: str, as_of: dt.date, removed: Sequence[str]) -> tuple[Traced, tuple[Removal, ...]]:
    """What agents read of a text, each character with its place in it, and all that was cut: by the rules, done again,
    and by the judge of instructions, as the run recorded it in `removed`."""
    traced, cuts = read_traced(text, as_of)
    suspected: list[Removal] = []
    for part in _suspected(traced.text, removed):
        at = traced.text.find(part)
        if at < 0:  # cut already, with a part before it
            continue
        start, end = traced.origin(at, at + len(part))
        suspected.append(Removal(start=start, end=end, kind="injection", rule="judge of instructions", excerpt=part))
        traced = traced.replace([(at, at + len(part), " ")])
    kept = traced.text.strip()
    lead = len(traced.text) - len(traced.text.lstrip())
    within = slice(lead, lead + len(kept))
    return Traced(kept, traced.starts[within], traced.ends[within]), (*cuts, *suspected)


def pieces_of(text: str, span: tuple[int, int] | None, cuts: Iterable[Removal]) -> tuple[Piece, ...]:
    """The text in pieces: at each end of the span and of each cut one ends. Where cuts overlap, the widest is told."""
    widest = sorted(cuts, key=lambda cut: cut.start - cut.end)
    start, end = span or (0, 0)
    bounds = sorted({0, len(text), start, end, *(at for cut in widest for at in (cut.start, cut.end))})
    found: list[Piece] = []
    for begin, stop in pairwise(bounds):
        cut = next((one for one in widest if one.start <= begin and stop <= one.end), None)
        piece = Piece(text=text[begin:stop], marked=start <= begin and stop <= end,
                      cut=cut.kind if cut else None, rule=cut.rule if cut else None)  # fmt: skip
        last = found[-1] if found else None
        if last is not None and last.model_copy(update={"text": piece.text}) == piece:
            found[-1] = piece.model_copy(update={"text": last.text + piece.text})
        else:
            found.append(piece)
    return tuple(found)


def _found(digest: str, held: str | None, texts: Texts) -> tuple[str | None, Kept, str | None]:
    """The text of a digest, where it was, and what is odd about that."""
    on_record = held if held is not None and sha256_of(held) == digest else None
    try:
        data = texts.read(digest)
    except RecordAltered as error:
        return on_record, "on record", error.message
    if data is not None:
        return data.decode(), "kept", None
    if on_record is not None:
        return on_record, "on record", None
    return None, "missing", "neither the home's texts nor the run's request has it"


def _span(place: re.Match[str], traced: Traced, length: int) -> tuple[int, int] | None:
    """The characters of the text as it was published that a pointer names."""
    start, end = int(place["start"]), int(place["end"])
    if not place["read"]:
        return (start, min(end, length))
    return traced.origin(start, end) if 0 <= start < end <= len(traced.text) else None


def _suspected(text: str, removed: Sequence[str]) -> list[str]:
    """The parts that the judge cut, whole: of a part the record has no more than the beginning."""
    from finllm.models.injection import pieces

    begun = [one.removeprefix(_SUSPECTED).strip() for one in removed if one.startswith(_SUSPECTED)]
    begun = [one for one in begun if one]  # of a part that nothing could be shown of, the record holds nothing
    parts = pieces(text) or [text] if begun else []
    return [next((part for part in parts if part.startswith(begin)), begin) for begin in begun if begin in text]


def _recorded(cuts: Sequence[Removal], removed: Sequence[str]) -> bool:
    """Whether the rules cut now what the run recorded that they cut."""
    now = [f"{cut.kind}: {cut.excerpt}" for cut in cuts if cut.rule != "judge of instructions"]
    then = [one for one in removed if not one.startswith(_SUSPECTED) and not re.search(r" \(in its \w+\)$", one)]
    return now == then

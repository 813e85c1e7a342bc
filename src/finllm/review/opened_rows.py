"""What an opened row of evidence is: typed, without a word of markup; every door renders these."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from finllm.memory.precedents import Precedent
from finllm.review.opened_series import SeriesWindow
from finllm.review.opened_text import WholeText
from finllm.tools.evidence import Evidence, show

Way = Literal["formula", "parts", "series", "text", "file", "scenario", "past", "record", "tools"]
"""How a value was found again: its formula over the rows that it names; the parts of a whole added up; the series, the
text or the file that it was read from; the scenario or the limits that gave it; the knowledge base; what the reader of
channels said, on record; or all tools run again on the record."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Term(_Frozen):
    """A row that another one names or is named by, as a link shows it."""

    id: str
    shown: str
    what: str
    entity: str

    @classmethod
    def of(cls, row: Evidence) -> Term:
        return cls(id=row.id, shown=show(row.value, row.unit), what=row.what, entity=row.entity)


class Recomputed(_Frozen):
    """The value found again, and whether it is `equal` to the row's: money to the cents that its terms are rounded to,
    all else to the last digits of a machine. `how` says from what.

    `of`: the row that the value is of: for `parts` the whole that they sum to.
    """

    way: Way
    of: str
    value: float | str
    shown: str
    equal: bool
    how: str

    @classmethod
    def by(cls, way: Way, row: Evidence, value: float | str, how: str, *, equal: bool) -> Recomputed:
        return cls(way=way, of=row.id, value=value, shown=show(value, row.unit), equal=equal, how=how)


class FileRow(_Frozen):
    """A row of the book's file, as the run's record has it.

    `unchanged`: the file still has the digest that the evidence names; None where it is not there to be looked at, and
    `why` says so.
    """

    uri: str
    row: str
    cells: dict[str, str]
    sha256: str
    unchanged: bool | None
    why: str | None = None


class PastRow(_Frozen):
    """A past event of the knowledge base. `unchanged`: the file that holds it has the digest that the row names."""

    event: Precedent
    uri: str
    sha256: str
    unchanged: bool


class OpenedRow(_Frozen):
    """A row of evidence with everything behind it.

    `terms`: the rows that its formula names, in order, each to be opened in turn, or those that its method is over;
    `used_by`: the rows that name it. `call`: the beginning of the key of the model call that it was measured at.
    `recomputed` is None where only the tools, run again, can find the value (see `review.rebuilt`).
    One of `series`, `text`, `file`, `past` and `given` holds what a row without terms stands on; the series of a method
    stand beside its terms. `notes`: what could not be looked at, and why.
    """

    run: str
    row: Evidence
    shown: str
    terms: tuple[Term, ...] = ()
    used_by: tuple[Term, ...] = ()
    recomputed: Recomputed | None = None
    series: tuple[SeriesWindow, ...] = ()
    text: WholeText | None = None
    file: FileRow | None = None
    past: PastRow | None = None
    given: str | None = None
    call: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing that was looked at differs from what the row says."""
        behind = [one.unchanged for one in (self.text, self.file, self.past, *self.series) if one is not None]
        return False not in behind and (self.recomputed is None or self.recomputed.equal)

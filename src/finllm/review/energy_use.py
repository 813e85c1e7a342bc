"""What calls on record used, by run, tenant, node or agent: joules, grams, and grams per forecast, with provenance."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from finllm.desk.spending import spent_of
from finllm.errors import InputError
from finllm.memory.reading import LedgerReader, UsedRow
from finllm.scheduler.money.amount import Amount, Provenance, weakest
from finllm.tools.export import Table

By = Literal["run", "tenant", "node", "agent"]

NOT_CALLED = (
    "of calls that gave no answer too, and of what is asked beside runs; tools, encoders and idling are not metered"
)
SCI = (
    "operational grams of the period per forecast, (E × I) / R of the Software Carbon Intensity; "
    "embodied ones are not known"
)
BASES = 3
"""How many of the bases of a sum are told."""
_KEY: dict[By, Callable[[UsedRow], str]] = {
    "run": lambda row: row.run_id,
    "tenant": lambda row: str(row.use.entry.request.get("tenant", "default")),
    "node": lambda row: row.use.entry.actor,
    "agent": lambda row: str(row.use.entry.request.get("agent", "")),
}


@dataclass(frozen=True)
class UsedPart:
    """What calls used together: s of model time, tokens, J, gCO₂e (None: not known), each with where it comes from.

    `uncharged`: how many of the calls have no grams, since no grid intensity was set when they were made.
    """

    what: str
    calls: int
    seconds: float
    tokens: int
    joules: float | None
    joules_from: str
    grams: float | None
    grams_from: str
    uncharged: int
    basis: str


@dataclass(frozen=True)
class EnergyUse:
    """The parts, all together, and how many forecasts (runs with a report that began in the period) they made."""

    since: str
    until: str
    by: By
    parts: tuple[UsedPart, ...]
    total: UsedPart
    forecasts: int

    @property
    def sci(self) -> float | None:
        """gCO₂e per forecast; None without forecasts, or where the grams of some call are not known."""
        if not self.forecasts or self.total.grams is None or self.total.uncharged:
            return None
        return self.total.grams / self.forecasts

    @property
    def joules_each(self) -> float | None:
        """J per forecast."""
        return None if not self.forecasts or self.total.joules is None else self.total.joules / self.forecasts

    def to_json(self) -> dict[str, Any]:
        return {
            "from": self.since, "to": self.until, "by": self.by, "parts": [asdict(one) for one in self.parts],
            "total": asdict(self.total), "forecasts": self.forecasts,
            "per_forecast": {"joules": self.joules_each, "sci_grams": self.sci, "sci_is": SCI},
            "of": NOT_CALLED,
        }  # fmt: skip

    def table(self) -> Table:
        """The parts, a row each, as CSV and Parquet have it."""
        names = tuple(UsedPart.__dataclass_fields__)
        return Table("energy", names, tuple(tuple(asdict(one).values()) for one in (*self.parts, self.total)))


def energy_use(ledger: LedgerReader, since: dt.datetime, until: dt.datetime, by: By) -> EnergyUse:
    """What the calls of [since, until) used, the most joules first; an answer from the record used nothing again.

    Errors: RecordError; InputError where grams of two kinds of intensity would be added.
    """
    first, last = _ns(since), _ns(until)
    rows = [row for row in ledger.uses_since(first) if row.at_ns < last]
    groups: dict[str, list[UsedRow]] = {}
    for row in rows:
        groups.setdefault(_KEY[by](row), []).append(row)
    parts = sorted((_part(what, of) for what, of in groups.items()), key=lambda one: -(one.joules or 0.0))
    ended = sum(first <= run.created_ns < last and run.status in ("finished", "blocked") for run in ledger.runs())
    return EnergyUse(since.isoformat(), until.isoformat(), by, tuple(parts), _part("all", rows), ended)


def _part(what: str, rows: Iterable[UsedRow]) -> UsedPart:
    costs = [spent_of(row.use) for row in rows]
    kinds = sorted({cost.grams.kind for cost in costs if cost.grams is not None})
    if len(kinds) > 1:
        raise InputError(f"grams by {' and by '.join(kinds)} grid intensity have no sum",
                         fix="give a period with --from and --to in which FINLLM_CARBON_KIND was one")  # fmt: skip
    joules = [cost.joules for cost in costs if cost.joules is not None]
    grams = [cost.grams for cost in costs if cost.grams is not None]
    return UsedPart(what, len(costs), round(sum(cost.seconds for cost in costs), 3), sum(cost.tokens for cost in costs),
                    *_told(joules), *_told(grams), len(costs) - len(grams), _bases([*joules, *grams]))  # fmt: skip


def _told(amounts: Sequence[Amount]) -> tuple[float | None, str]:
    if not amounts:
        return None, "not known"
    provenances: list[Provenance] = [one.provenance for one in amounts]
    return sum(one.value for one in amounts), weakest(*provenances)


def _bases(amounts: Sequence[Amount]) -> str:
    """The first of what the figures are based on, each once, and how many more there are."""
    found = list(dict.fromkeys(part for one in amounts for part in one.basis.split(" | ") if part))
    more = f" | and {len(found) - BASES} more" if len(found) > BASES else ""
    return " | ".join(found[:BASES]) + more


def _ns(when: dt.datetime) -> int:
    return int(when.timestamp() * 1e9)

"""What runs spend: how calls are priced here, the tenant's account, and what earlier processes spent."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from finllm.desk.calibrated import calibrated_here
from finllm.errors import InputError
from finllm.events import EventBus, Noted
from finllm.memory.reading import LedgerReader, Use
from finllm.scheduler.asking import COPY
from finllm.scheduler.backends import Offer
from finllm.scheduler.money.account import NOTHING, Account, Spent
from finllm.scheduler.money.amount import Amount, Grams, IntensityKind, Provenance
from finllm.scheduler.money.budget import Budget
from finllm.scheduler.money.carbon import ZoneIntensity
from finllm.scheduler.money.carbon_file import open_grid
from finllm.scheduler.money.costing import Costing, Rates
from finllm.scheduler.money.tariff import Tariff
from finllm.scheduler.record import CALL, CHARGE, PLACEMENT, EntryKind
from finllm.settings import Settings
from finllm.tools.data.scenario import BudgetEntry

THRIFT = EntryKind("thrift")
"""What a run did without, since its budget was short."""


class AmountRow(BaseModel):
    """A quantity with where it comes from; `basis` in words. `kind` of grid intensity, for grams."""

    model_config = ConfigDict(frozen=True)

    value: float
    provenance: Provenance
    basis: str
    kind: IntensityKind | None = None


class CopiesRow(BaseModel):
    """Critical calls: how many ran in two domains (`doubled`), what the copies that came second used, which are in the
    run's figures too, and why others ran in one (`alone`, each with its agent)."""

    model_config = ConfigDict(frozen=True)

    doubled: int
    tokens: int
    joules: AmountRow | None
    alone: tuple[str, ...]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """As rows of what a run cost."""
        found: list[tuple[str, ...]] = []
        if self.doubled:
            energy = "" if self.joules is None else f", {self.joules.value:.4g} J ({self.joules.provenance})"
            told = f"of them by the copies that came second{energy}: {self.doubled} critical calls ran in two domains"
            found.append(("copies", str(self.tokens), "tokens", "modelled", told))
        if self.alone:
            told = f"critical, and ran in one domain: {'; '.join(dict.fromkeys(self.alone))}"
            found.append(("without a copy", str(len(self.alone)), "calls", "measured", told))
        return found


class SpentRow(BaseModel):
    """What a run spent, also by processes that were stopped: wall-clock s, tokens, J, gCO₂e, USD. None: not known.

    `allowed`: the seconds of its budget, where it took more: a run that is answered from its record asks no model that
    they could stop, and nor do the tools. `copies`: of critical calls, None where no backend tells its domains.
    `left_out`: what the run did without, and why, for its budget was short.
    """

    model_config = ConfigDict(frozen=True)

    seconds: float
    tokens: int
    deep_tokens: int
    joules: AmountRow | None
    grams: AmountRow | None
    usd: AmountRow | None
    allowed: float | None = None
    copies: CopiesRow | None = None
    left_out: tuple[str, ...] = ()

    @property
    def over(self) -> str:
        """That it took longer than its budget, in words; empty where it did not."""
        return "" if self.allowed is None else (
            f"longer than the {self.allowed:g} s of its budget, after which no model was asked"
        )  # fmt: skip

    @classmethod
    def of(
        cls, spent: Spent, budget: Budget | None = None, copies: CopiesRow | None = None, left_out: Sequence[str] = ()
    ) -> SpentRow:
        allowed = None if budget is None else budget.seconds
        return cls(allowed=allowed if allowed is not None and spent.seconds > allowed else None,
                   seconds=spent.seconds, tokens=spent.tokens, deep_tokens=spent.deep_tokens,
                   joules=_row(spent.joules), grams=_row(spent.grams), usd=_row(spent.usd), copies=copies,
                   left_out=tuple(left_out))  # fmt: skip


def _row(amount: Amount | None) -> AmountRow | None:
    if amount is None:
        return None
    kind = amount.kind if isinstance(amount, Grams) else None
    return AmountRow(value=amount.value, provenance=amount.provenance, basis=amount.basis, kind=kind)


def budget_of(entry: BudgetEntry | None) -> Budget:
    """A budget as it was asked for, as the broker keeps it."""
    return Budget() if entry is None else Budget(**entry.model_dump())


def open_costing(settings: Settings, offers: Sequence[Offer], bus: EventBus) -> Costing:
    """How calls are priced here; a calibration that no longer holds is noted.

    Errors: InputError for a grid intensity, zone or price that cannot be used.
    """
    rates: dict[str, Rates] = {}
    for offer in offers:
        found = calibrated_here(settings, offer)
        if found.calibration is not None:
            rates[offer.name] = Rates.of(found.calibration.speed)
        elif found.stale is not None:
            bus.emit(Noted(level="warning", message=f"the calibration of {offer.name!r} is of {found.words}"))
    return Costing(open_source(settings), rates, {offer.name: tariff_of(settings, offer) for offer in offers})


def tariff_of(settings: Settings, offer: Offer) -> Tariff:
    """What a backend's calls cost: its owner's prices; of one on this machine else this machine's energy.

    A server without prices is not priced: what energy costs here says nothing of it.
    """
    return offer.tariff or Tariff(settings.usd_per_kwh if offer.where == "local" else None)


def open_source(settings: Settings) -> ZoneIntensity | None:
    """The intensity of the zone that this machine draws from, known for now; None where none is set.

    Errors: InputError for a file, zone or series that cannot be used now.
    """
    if settings.carbon is None:
        return None
    grid = open_grid(settings.carbon, settings.zone, settings.carbon_kind, settings.carbon_accounting)
    zones = grid.zones
    if settings.zone is None and len(zones) != 1:
        raise InputError(f"the grid intensity is of {', '.join(zones)}", fix="set FINLLM_ZONE to one of them")
    source = grid.zone(settings.zone or next(iter(zones)))
    source.at(dt.datetime.now(dt.UTC))
    return source


def carried(ledger: LedgerReader, run_id: str) -> Spent:
    """What the calls that this run already made cost, answered or not: model seconds, tokens, J, gCO₂e, USD."""
    return _sum([*ledger.uses(run_id, CALL), *ledger.uses(run_id, CHARGE)])


def copies_of(ledger: LedgerReader, run_id: str) -> CopiesRow | None:
    """What became of a run's critical calls, from the record; None where none of them was to have a copy."""
    placed = [(use.entry.request["agent"], use.entry.response) for use in ledger.uses(run_id, PLACEMENT)
              if not use.reused]  # fmt: skip
    doubled = sum(bool(said.get("twin")) for _, said in placed)
    alone = tuple(f"{agent}: {said['alone']}" for agent, said in placed if said.get("alone"))
    if not doubled and not alone:
        return None
    seconds = [use for use in ledger.uses(run_id, CHARGE) if use.entry.response["why"].startswith(COPY)]
    spent = _sum(seconds)
    return CopiesRow(doubled=doubled, tokens=spent.tokens, joules=_row(spent.joules), alone=alone)


def left_out_of(ledger: LedgerReader, run_id: str) -> list[str]:
    """What a run did without since its budget was short, from the record, in order."""
    found = {use.key: use.entry for use in ledger.uses(run_id, THRIFT)}
    return [f"{one.request['node']}: {one.response['what']}, {one.response['why']}" for one in found.values()]


def tenant_account(settings: Settings, ledger: LedgerReader) -> Account:
    """The account of this home's tenant, which all its runs of the day (UTC) spend from, whatever process they are of.

    Errors: InputError for a budget that cannot be read.
    """
    if settings.tenant_budget is None:
        return Account(Budget(), time.monotonic, scope="tenant")
    budget = budget_of(_entry(settings.tenant_budget))
    if budget.seconds is not None:
        raise InputError("FINLLM_TENANT_BUDGET holds seconds, which pass for all", fix="give seconds to the runs")
    today = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    uses = [row.use for row in ledger.uses_since(int(today.timestamp() * 1e9))]
    theirs = [use for use in uses if use.entry.request.get("tenant", "default") == settings.tenant]
    return Account(budget, time.monotonic, _sum(theirs), scope="tenant")


def _entry(text: str) -> BudgetEntry:
    from finllm.tools.data.budget_text import parse_budget_text

    try:
        return BudgetEntry.model_validate(parse_budget_text(text))
    except InputError as error:
        raise InputError(f"FINLLM_TENANT_BUDGET: {error.message}", fix=error.fix) from error


def _sum(uses: Iterable[Use]) -> Spent:
    spent = NOTHING
    for use in uses:
        if not use.reused and use.entry.kind in (CALL, CHARGE):
            spent += spent_of(use)
    return spent


def spent_of(use: Use) -> Spent:
    """What a recorded call cost; of one recorded before costs were, its seconds and tokens."""
    said = use.entry.response
    if "spent" in said:
        return Spent.from_json(said["spent"])
    tokens = said["prompt_tokens"] + said["output_tokens"]
    deep = use.entry.request["offer"]["tier"] == "deep"
    return Spent(said["seconds"], tokens, tokens if deep else 0)

"""How calls are priced here: the grid's intensity and the tenant's day, from the settings and the record."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict
from pathlib import Path

import pytest

from finllm.desk.spending import open_costing, open_source, tenant_account
from finllm.errors import InputError
from finllm.events import EventBus
from finllm.memory.ledger import Ledger
from finllm.scheduler.money.account import Spent
from finllm.scheduler.record import CHARGE, Entry
from finllm.settings import Settings


def grid(tmp_path: Path, start: dt.datetime, *zones: str) -> str:
    rows = ["time,gco2_per_kwh,zone"]
    rows += [f"{(start + dt.timedelta(hours=at)).isoformat()},{100 + at},{zone}" for zone in zones for at in range(48)]
    path = tmp_path / "grid.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(path)


def test_the_intensity_of_this_hour_is_taken_from_the_zone_that_is_set(tmp_path: Path) -> None:
    now = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
    carbon = grid(tmp_path, now - dt.timedelta(hours=10), "ES", "FR")
    source = open_source(Settings(carbon=carbon, zone="FR"))
    assert source is not None
    assert source.at(dt.datetime.now(dt.UTC)).value in (110, 111)
    with pytest.raises(InputError, match="is of ES, FR") as failure:
        open_source(Settings(carbon=carbon))
    assert "FINLLM_ZONE" in failure.value.fix
    with pytest.raises(InputError, match="zone 'PT'"):
        open_source(Settings(carbon=carbon, zone="PT"))


def test_a_series_that_does_not_reach_today_is_refused_before_anything_runs(tmp_path: Path) -> None:
    old = grid(tmp_path, dt.datetime(2022, 1, 1, tzinfo=dt.UTC), "ES")
    with pytest.raises(InputError, match="covers 2022-01-01 00:00:00Z to 2022-01-03 00:00:00Z"):
        open_costing(Settings(carbon=old), [], EventBus())
    assert open_source(Settings()) is None


def test_a_tenants_day_counts_what_every_run_of_it_spent(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for number, tenant in enumerate(("desk-a", "desk-a", "desk-b")):
        spent = {"spent": asdict(Spent(0.1, 100, 0)), "why": "it failed"}
        entry = Entry(f"key-{number}", CHARGE, "edge", {"tenant": tenant}, spent)
        ledger.record(entry, run_id=f"run-{number}", node="narrative")
    mine = Settings(tenant="desk-a", tenant_budget="1000tokens,5kJ")
    assert tenant_account(mine, ledger).tokens_left("edge") == 800
    assert tenant_account(Settings(tenant="desk-a"), ledger).tokens_left("edge") == float("inf")
    for text, said in (("20s", "holds seconds"), ("-5J", "FINLLM_TENANT_BUDGET: budget '-5J'")):
        with pytest.raises(InputError, match=said):
            tenant_account(Settings(tenant_budget=text), ledger)
    ledger.close()

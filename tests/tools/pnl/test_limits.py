"""A result held against limits: breached, not checked and why, or kept; never passed where nobody looked."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import pytest

from finllm.tools.data.books.book import Exclusion
from finllm.tools.data.books.position import Portfolio, Position, Refused
from finllm.tools.data.limits import Limits
from finllm.tools.pnl.attribution import Attribution
from finllm.tools.pnl.coverage import Coverage, Gap, Thresholds
from finllm.tools.pnl.limits import Held, Known, hold, restricted_in
from finllm.tools.pnl.outcome import ExpectedShortfall, ValueAtRisk, usd


def cuts(**by_position: float) -> Attribution:
    gains = {name: usd(one) for name, one in by_position.items()}
    total = sum(gains.values(), Decimal(0))
    return Attribution(total=total, by_position=gains, by_factor={"EQUITY_US": total}, by_sector={"Tech": total},
                       by_direction={})  # fmt: skip


def coverage(missing: float = 0.0) -> Coverage:
    return Coverage(covered=1 - missing, stand_in=0.0, missing=missing, counted=1 - missing, complete=missing <= 0.05,
                    positions=2, stand_ins=0, left_out=int(missing > 0), unknown=0,
                    first_missing=(Gap(id="NEWCO", reason="no beta", share=missing),) if missing else (),
                    thresholds=Thresholds())  # fmt: skip


def known(missing: float = 0.0, var: float | None = 10.0, of: float = 1.0) -> Known:
    tails = (None, None) if var is None else (
        ValueAtRisk(loss=usd(var), level=0.975, window="w", coverage=of, missing=() if of == 1 else ("BOND",)),
        ExpectedShortfall(loss=usd(var * 1.2), level=0.975, window="w", coverage=of),
    )  # fmt: skip
    out = (Exclusion(id="NEWCO", reason="no history and no beta", weight=missing, sector="Energy"),) if missing else ()
    return Known(coverage(missing), out, ("EQUITY_US", "OIL_WTI"), *tails)


def told(held: Held) -> tuple[Mapping[tuple[str, str], Decimal], Mapping[tuple[str, str], str]]:
    return ({(one.kind, one.subject): one.loss for one in held.breaches},
            {(one.kind, one.subject): one.why for one in held.unchecked})  # fmt: skip


def test_names_match_whatever_their_case() -> None:
    limits = Limits(
        version=1, loss_by_factor={"equity_us": 5}, loss_by_sector={"TECH": 5}, loss_by_position={"aapl": 5}
    )
    breached, unchecked = told(hold(cuts(AAPL=-10.0), known(), limits))
    assert set(breached) == {("loss_by_factor", "EQUITY_US"), ("loss_by_sector", "Tech"), ("loss_by_position", "AAPL")}
    assert unchecked == {}


def test_a_name_that_matches_nothing_is_not_checked() -> None:
    limits = Limits(version=1, loss_by_sector={"Energy": 5}, loss_by_position={"XOM": 5}, loss_by_factor={"COBALT": 5})
    breached, unchecked = told(hold(cuts(AAPL=-10.0), known(), limits))
    assert breached == {}
    assert unchecked["loss_by_sector", "Energy"] == "no sector of that name"
    assert unchecked["loss_by_position", "XOM"] == "no position of that name"
    assert unchecked["loss_by_factor", "COBALT"].startswith("no factor of this run")


def test_what_is_left_out_is_not_checked_by_name_and_as_each() -> None:
    limits = Limits(version=1, loss_by_position={"newco": 1e9, "each": 1e9}, loss_by_sector={"Energy": 1e9})
    _, unchecked = told(hold(cuts(AAPL=-10.0), known(0.8), limits))
    assert unchecked["loss_by_position", "newco"] == "left out: no history and no beta"
    assert unchecked["loss_by_position", "each"] == "left out: NEWCO"
    assert unchecked["loss_by_sector", "Energy"] == "left out of it: NEWCO"


@pytest.mark.parametrize(("missing", "open"), [(0.04, False), (0.81, True)])
def test_a_limit_on_the_whole_is_not_checked_on_half_a_book(missing: float, open: bool) -> None:
    limits = Limits(version=1, total_loss=1e6, loss_by_factor={"EQUITY_US": 1e6})
    _, unchecked = told(hold(cuts(AAPL=-10.0), known(missing), limits))
    assert set(unchecked) == ({("total_loss", "book"), ("loss_by_factor", "EQUITY_US")} if open else set())


def test_the_whole_loss_the_var_the_es_and_the_coverage_are_limited() -> None:
    limits = Limits(version=1, total_loss=9, var_975_1d=9, es_975_1d=11, coverage=0.99)
    held = hold(cuts(AAPL=-10.0), known(0.04), limits)
    breached, _ = told(held)
    assert breached == {("total_loss", "book"): 10, ("var_975_1d", "book"): 10, ("es_975_1d", "book"): 12,
                        ("coverage", "book"): Decimal("0.96")}  # fmt: skip
    assert held.breaches[-1].shown == ("99 %", "96 %")


def test_a_var_of_part_of_the_book_or_of_none_checks_no_limit() -> None:
    limits = Limits(version=1, var_975_1d=100)
    _, part = told(hold(cuts(AAPL=-10.0), known(of=0.68), limits))
    assert part["var_975_1d", "book"] == "it covers 68 % of the book, without BOND"
    _, none = told(hold(cuts(AAPL=-10.0), known(var=None), limits))
    assert none["var_975_1d", "book"] == "there is no history to take it from"


def test_no_limits_are_not_kept_limits() -> None:
    assert not hold(cuts(AAPL=-10.0), known(), Limits(version=1, restricted=["AAPL"])).limited


def test_restricted_names_are_found_by_id_name_and_underlying_also_in_refused_rows() -> None:
    portfolio = Portfolio(
        name="b", uri="u", sha256="0",
        positions=(Position(id="AAPL", asset_class="equity"),
                   Position(id="O1", asset_class="option", underlying="TSLA"),
                   Position(id="US38259P5089", name="Alphabet", asset_class="equity")),
        refused=(Refused(id="LUKOY", row=9, reason="no price"),),
    )  # fmt: skip
    limits = Limits(version=1, restricted=["aapl", "tsla", "alphabet", "lukoy", "ACME"])
    assert restricted_in(portfolio, limits) == ("AAPL", "O1", "US38259P5089", "LUKOY")

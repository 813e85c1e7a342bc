"""Shocks as users write them: read in the factor's own unit or in sigmas, or refused with an example."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from finllm.errors import InputError
from finllm.tools.data.factors import FACTOR_IDS, FACTORS, FactorId, parse_user_shock

WRITTEN = {"return": "%", "bp": "bp", "points": "points"}


@pytest.mark.parametrize(
    ("factor", "move", "amount", "in_sigmas"),
    [
        ("OIL_WTI", "+40%", 0.4, False),
        ("OIL_WTI", "40%", 0.4, False),
        ("EQUITY_US", "-39.9 %", -0.399, False),
        ("RATE_US_10Y", " -75bp ", -75.0, False),
        ("CREDIT_BAA_AAA", "+120 bp", 120.0, False),
        ("VIX", "+12points", 12.0, False),
        ("VIX", "+12.5 pts", 12.5, False),
        ("GOLD", "-3sigma", -3.0, True),
        ("VIX", "+2.5σ", 2.5, True),
        ("USD_BROAD", "0%", 0.0, False),
    ],
)
def test_a_move_is_read_in_its_unit(factor: str, move: str, amount: float, in_sigmas: bool) -> None:
    shock = parse_user_shock(factor, move)
    assert (shock.factor, shock.amount, shock.in_sigmas) == (factor, pytest.approx(amount), in_sigmas)


@pytest.mark.parametrize(
    "move",
    [
        "",
        "40",
        "%",
        "+40 percent",
        "forty %",
        "1e3%",
        "--40%",
        "+-40%",
        "40%%",
        "40%bp",
        "nan%",
        "inf%",
        "−40%",
        ".5%",
        "4,0%",
    ],
)
def test_what_cannot_be_read_is_refused_with_an_example(move: str) -> None:
    with pytest.raises(InputError) as refusal:
        parse_user_shock("OIL_WTI", move)
    assert refusal.value.message == f"cannot read the move {move!r} of 'OIL_WTI'"
    assert refusal.value.fix == "write '+40%' or '-3sigma'"
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize(
    ("factor", "move", "example"),
    [("OIL_WTI", "+75bp", "'+40%'"), ("RATE_US_10Y", "+1%", "'+75bp'"), ("VIX", "+40%", "'+12points'")],
)
def test_a_unit_that_is_not_the_factor_s_is_refused_with_the_right_one(factor: str, move: str, example: str) -> None:
    with pytest.raises(InputError, match="does not move in") as refusal:
        parse_user_shock(factor, move)
    assert example in refusal.value.fix


@pytest.mark.parametrize("factor", ["", "OIL", "oil_wti", "OIL_WTI "])
def test_an_unknown_factor_is_refused_with_those_known(factor: str) -> None:
    with pytest.raises(InputError, match="unknown factor") as refusal:
        parse_user_shock(factor, "+40%")
    assert all(known in refusal.value.fix for known in FACTOR_IDS)


@given(factor=st.sampled_from(FACTOR_IDS), tenths=st.integers(-9999, 9999), sigmas=st.booleans())
def test_every_factor_takes_its_own_unit_and_sigmas(factor: FactorId, tenths: int, sigmas: bool) -> None:
    unit = FACTORS[factor].unit
    assume(sigmas or unit != "return" or tenths >= -1000)  # a price cannot fall by more than all of it
    shock = parse_user_shock(factor, f"{tenths / 10:+}{'sigma' if sigmas else WRITTEN[unit]}")
    scale = 1000 if unit == "return" and not sigmas else 10
    assert shock.amount == pytest.approx(tenths / scale)
    assert shock.in_sigmas is sigmas


def test_the_seven_factors_are_all_described() -> None:
    assert tuple(FACTORS) == FACTOR_IDS == get_args(FactorId)
    assert len(FACTOR_IDS) == 7
    assert all(id == factor.id and factor.label for id, factor in FACTORS.items())

"""Codes of currencies: pence, those that ended, pairs, and what is said of a pair that is given as a factor."""

import datetime as dt

import pytest

from finllm.tools.data.currencies import Currency, currency_of, factor_currency, fx_hint, pair_of
from finllm.tools.data.market import MarketStore

D = dt.date


@pytest.mark.parametrize(
    ("text", "code"), [("GBX", "GBP"), ("GBp", "GBP"), ("gbx", "GBP"), ("ILA", "ILS"), ("ZAc", "ZAR")]
)
def test_pence_and_their_like_are_hundredths(text: str, code: str) -> None:
    found = currency_of(text, D(2022, 6, 30))
    assert found is not None
    assert (found.code, found.units) == (code, 0.01)


def test_pounds_are_not_pence() -> None:
    assert currency_of("GBP", D(2022, 6, 30)) == Currency("GBP", 1.0)
    assert currency_of("gbp", D(2022, 6, 30)) == Currency("GBP", 1.0)


def test_a_currency_that_ended_is_worth_what_replaced_it_from_that_day_on() -> None:
    assert currency_of("HRK", D(2022, 12, 31)) == Currency("HRK", 1.0)
    found = currency_of("HRK", D(2023, 1, 1))
    assert found is not None
    assert (found.code, found.units) == ("EUR", 1 / 7.5345)
    assert "ended on 2023-01-01: 7.5345 HRK are 1 EUR" in found.note
    mark = currency_of("DEM", D(2026, 1, 1))
    assert mark is not None
    assert (mark.code, mark.units) == ("EUR", 1 / 1.95583)


@pytest.mark.parametrize("code", ["BGN", "CYP", "EEK", "HRK", "LTL", "LVL", "MTL", "SIT", "SKK"])
def test_the_fixed_rates_are_those_that_the_ecb_published_last(code: str) -> None:
    after = currency_of(code, D(2026, 6, 30))
    assert after is not None
    assert after.code == "EUR"
    market = MarketStore()
    last = market.read(f"FX_{code}USD", D(2026, 6, 30))
    euro = market.read("FX_EURUSD", last.last).values.iloc[-1]
    assert last.values.iloc[-1] / euro == pytest.approx(after.units, rel=2e-3)


@pytest.mark.parametrize("text", ["XYZ", "", "EURO", "XAU"])
def test_what_is_no_currency_is_none(text: str) -> None:
    assert currency_of(text, D(2022, 6, 30)) is None


@pytest.mark.parametrize(
    ("text", "pair"),
    [("EURUSD", ("EUR", "USD")), ("eur/usd", ("EUR", "USD")), ("USDJPY=X", ("USD", "JPY")),
     ("GBP.CHF", ("GBP", "CHF")), ("USDUSD", None), ("SP500X", None), ("ABCDEF", None)],
)  # fmt: skip
def test_pairs_are_read_as_people_write_them(text: str, pair: tuple[str, str] | None) -> None:
    assert pair_of(text) == pair


@pytest.mark.parametrize(
    ("text", "said"),
    [("EURUSD", "use FX_EURUSD"), ("EUR", "use FX_EURUSD"), ("USDJPY", "use FX_JPYUSD, what one JPY costs in USD, so "),
     ("EURGBP", "use FX_EURUSD and FX_GBPUSD"), ("FX_USDJPY", "use FX_JPYUSD"), ("OIL", "")],
)  # fmt: skip
def test_a_pair_given_as_a_factor_is_answered_with_the_factor(text: str, said: str) -> None:
    assert fx_hint(text).startswith(said)
    assert bool(fx_hint(text)) == bool(said)


def test_only_factors_of_known_currencies_are_fx_factors() -> None:
    assert [factor_currency(one) for one in ("FX_TWDUSD", "FX_XYZUSD", "FX_USDUSD", "USD_BROAD")] == ["TWD"] + [
        None
    ] * 3

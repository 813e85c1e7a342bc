"""How much of an instrument a row says there is and what it is worth: each figure is held against the others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from finllm.tools.data.books.fields import words
from finllm.tools.data.books.position import AssetClass
from finllm.tools.data.currencies import HUNDREDTHS

CLOSE = 0.01
"""How near quantity × price must be to a market value, as a share of it, to agree with it."""
ACCRUED = 0.06
"""The same for a bond, whose value has interest in it and whose price has not."""
DOUBTFUL = 0.10
"""Up to here a position is doubtful, as where the price is of another day; beyond, one of the figures is wrong."""
DEFAULT_BASE = "USD"
BOND_LOT = 1000
"""Nominal of one bond where a list counts bonds, as is usual in the United States."""
_FIGURES = frozenset(("quantity", "market_value", "price", "value_base", "fx", "multiplier"))
_SIZED = ("cash", "future", "option")
_PAIR = re.compile(r"([A-Z]{3})[/. ]?([A-Z]{3})?(?: .*)?")


@dataclass
class Amounts:
    """What a position gets. `doubt` says what does not quite agree, `problems` why it is refused, `said` what was done.

    `market_value` and `price` are in `currency`; one unit of it is worth `fx` in the base currency.
    """

    currency: str
    quantity: float | None = None
    market_value: float | None = None
    price: float | None = None
    fx: float | None = None
    multiplier: float | None = None
    doubt: str = ""
    problems: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def settle(
    number: dict[str, float], kind: AssetClass, currency: str, listed: float | None, id: str, name: str,
    base: str | None, unit: str | None, in_base: bool,
) -> Amounts:  # fmt: skip
    """The figures of one row, in one currency. `listed`: the exchange's multiplier of such a contract.

    `unit` is the currency that the column of market values states; `in_base` says that its figures are in `base`.
    """
    found = Amounts(currency, number.get("quantity"), number.get("market_value"), number.get("price"), number.get("fx"),
                    number.get("multiplier"))  # fmt: skip
    if len(number.keys() & _FIGURES) == 1 and unit is None and not in_base and kind not in _SIZED:
        return found  # one figure alone, which nothing can be held against
    worth = number.get("value_base")
    if found.market_value is not None and (in_base or (unit and unit != currency)):
        if HUNDREDTHS.get(currency) == unit and not in_base:
            found.market_value *= 100
        elif in_base and currency == base:
            pass
        else:
            base = unit or base
            worth, found.market_value = found.market_value, None
    if kind == "cash":
        _cash(found, worth, id, name, base)
        return found
    _size_contract(found, kind, listed)
    expected = _expected(found, kind)
    _from_base(found, worth, base, expected)
    if found.market_value is not None:
        _compare(found, kind, expected, base)
        if kind == "future" and found.price is None and found.quantity and found.multiplier and found.market_value:
            found.price = abs(found.market_value / found.quantity / found.multiplier)
            found.said.append("are futures without a price: it follows from the market value as the notional")
    return found


def _size_contract(found: Amounts, kind: AssetClass, listed: float | None) -> None:
    """The multiplier of a future or option: the file's, else what its figures imply, else the exchange's."""
    if kind not in ("future", "option"):
        found.multiplier = None if found.multiplier == 1 else found.multiplier
        return
    if found.multiplier is not None:
        return
    if kind == "option" and found.quantity and found.price and found.market_value:
        implied = found.market_value / found.quantity / found.price
        if abs(implied - round(implied)) <= CLOSE * implied and implied >= 1:
            found.multiplier = float(round(implied))
            found.said.append("have no multiplier: it follows from quantity, price and market value")
            return
    if listed is not None:
        found.multiplier = float(listed)
        found.said.append("have no multiplier: the exchange's is used (contracts.yaml)")
    else:
        found.said.append("are contracts without a multiplier: one contract is taken as one unit")


def _expected(found: Amounts, kind: AssetClass) -> float | None:
    if found.quantity is None or found.price is None:
        return None
    return found.quantity * found.price * (found.multiplier or 1.0) * (0.01 if kind == "bond" else 1.0)


def _from_base(found: Amounts, worth: float | None, base: str | None, expected: float | None) -> None:
    """A value in the base currency becomes one in the row's own, by the file's rate, or the one its price implies."""
    if worth is None:
        return
    if found.market_value is not None:
        if found.fx is None and found.market_value:
            found.fx = worth / found.market_value
        elif found.fx and found.market_value and _near(worth / found.market_value, 1 / found.fx) and found.fx != 1:
            found.fx = 1 / found.fx
            found.said.append("have their exchange rate the other way round, as their value in the base currency tells")
        elif found.fx and abs(found.market_value * found.fx - worth) > CLOSE * abs(worth):
            found.problems.append(f"its market value of {found.market_value:,.2f} at a rate of {found.fx:g} is not its "
                                  f"value of {worth:,.2f} in the base currency")  # fmt: skip
        return
    if found.currency == base or base is None:
        found.market_value, found.fx = worth, 1.0 if base else found.fx
    elif found.fx:
        found.market_value = worth / found.fx
    elif expected and worth / expected > 0:
        found.market_value, found.fx = expected, worth / expected
        found.said.append(f"have their value in {base}: their exchange rate is that over quantity × price")
    elif expected:
        found.problems.append(
            f"its value of {worth:,.2f} and its quantity × price of {expected:,.2f} have different signs"
        )
    else:
        found.said.append(
            f"are worth what the file says in {base}; neither price nor rate tells their own currency's part"
        )
        found.currency, found.market_value, found.fx = base, worth, 1.0


def _compare(found: Amounts, kind: AssetClass, expected: float | None, base: str | None) -> None:
    value = found.market_value
    assert value is not None
    if kind == "future":  # its market value may be its notional, what it gained today, or nothing
        return
    if found.quantity and value and (found.quantity < 0) != (value < 0) and kind != "fx":
        found.problems.append(f"its quantity of {found.quantity:,g} and its market value of {value:,.2f} have "
                              "different signs")  # fmt: skip
        return
    if not expected or not value:
        return
    ratio = value / expected
    if abs(ratio - 1) <= (ACCRUED if kind == "bond" else CLOSE) or _explained(found, kind, ratio, base):
        return
    says = f"quantity × price is {expected:,.2f}, and the market value {value:,.2f}"
    if abs(ratio - 1) <= DOUBTFUL:
        found.doubt = f"{says}; the market value is used"
    else:
        found.problems.append(f"{says}; correct the one that is wrong")


def _near(ratio: float, other: float) -> bool:
    return abs(ratio / other - 1) <= CLOSE


def _explained(found: Amounts, kind: AssetClass, ratio: float, base: str | None) -> bool:
    """Whether another unit of one figure makes them agree; that figure is then put into the usual one, and said."""
    assert found.market_value is not None
    assert found.quantity is not None
    assert found.price is not None
    if found.fx and found.currency != base and _near(ratio, found.fx):
        found.market_value /= found.fx
        found.said.append("have their market value in the base currency, as quantity × price × rate tells")
    elif found.currency in HUNDREDTHS and _near(ratio, 0.01):
        found.market_value *= 100
        found.said.append(f"are priced in {found.currency}, and their market value is in "
                          f"{HUNDREDTHS[found.currency]}")  # fmt: skip
    elif found.currency in HUNDREDTHS.values() and kind in ("equity", "fund") and _near(ratio, 0.01):
        found.price /= 100
        found.said.append(f"are priced in hundredths of {found.currency}, as their market value tells")
    elif kind == "bond" and abs(ratio / 100 - 1) <= ACCRUED:
        found.price *= 100
        found.said.append("have their price as a share of the nominal; it is taken per 100")
    elif kind == "bond" and abs(ratio / BOND_LOT - 1) <= ACCRUED:
        found.quantity *= BOND_LOT
        found.said.append(f"count bonds of {BOND_LOT} nominal, as their market value tells")
    else:
        return False
    return True


def _cash(found: Amounts, worth: float | None, id: str, name: str, base: str | None) -> None:
    """Cash is worth its quantity. Its own currency may stand in its name, and the row's be that of its value."""
    held = _held_currency(id, name)
    value = found.market_value if found.market_value is not None else worth
    in_other = worth is not None and found.market_value is None and base is not None and found.currency != base
    found.price = found.multiplier = None
    if held and held != found.currency and not in_other:
        if found.quantity is None:
            found.said.append(f"are cash valued in another currency, {found.currency}, which alone they move with")
            return
        if not found.market_value:
            found.problems.append(f"its {found.quantity:,.2f} may be {held} or {found.currency}; write {held} as the "
                                  "currency, or give its market value too")  # fmt: skip
            return
        rate = found.market_value / found.quantity
        known = found.currency == (base or DEFAULT_BASE)
        found.said.append(f"are cash in {held}, with their value in {found.currency}")
        found.currency, found.market_value, found.fx = held, found.quantity, rate if known else None
        if not known:
            found.problems.append(f"its value is in another currency than {base or DEFAULT_BASE}, the book's")
        return
    if in_other:
        if found.quantity and value:
            found.fx = found.fx or value / found.quantity
            found.market_value = found.quantity
        elif found.fx and value is not None:
            found.market_value = value / found.fx
        else:
            found.said.append(f"are cash of which only the value in {base} is given")
            found.currency, found.market_value = base or found.currency, value
        return
    if found.quantity is not None and value is not None and abs(found.quantity - value) > CLOSE * abs(value):
        found.problems.append(f"it is {found.quantity:,.2f} of cash, and its market value {value:,.2f}")
    found.market_value = value if value is not None else found.quantity


def _held_currency(id: str, name: str) -> str | None:
    """The currency that cash is in by its id or name: JPY of `JPYUSD`, `JPY Curncy`, `JPY CASH`."""
    for text in (id, name.upper()):
        match = _PAIR.fullmatch(text)
        if match and match[1] in words().currencies and (match[2] is None or match[2] in words().currencies):
            return match[1]
    return None


def values_are_in_base(
    quantities: Sequence[float], prices: Sequence[float], market_values: Sequence[float], currencies: Sequence[str]
) -> str | None:
    """The currency that a column of market values is in as a whole, although its rows have several; None for their own.

    It is so where quantity × price gives the value in one currency, and in every other the same multiple of it.
    """
    ratios: dict[str, list[float]] = {}
    for quantity, price, value, currency in zip(quantities, prices, market_values, currencies, strict=True):
        if quantity * price and value and currency:  # NaN where one is not given, which is no ratio either
            ratio = value / (quantity * price)
            if ratio == ratio:  # noqa: PLR0124  not NaN
                ratios.setdefault(currency, []).append(ratio)
    middles = {currency: median(some) for currency, some in ratios.items()}
    own = [currency for currency, middle in middles.items() if _near(middle, 1)]
    others = [currency for currency in middles if currency not in own]
    steady = all(sum(_near(one, middles[currency]) for one in ratios[currency]) >= 0.5 * len(ratios[currency])
                 for currency in others)  # fmt: skip
    return own[0] if len(own) == 1 and others and steady else None

"""A trade of a session beside the position that it changes; one out of proportion is done only where that is confirmed.

A slip of the finger (`-999999999`) is no trade that a desk would do unasked: what turns a position round, sells short
what is not held, or is worth more than the whole book, wants a `yes` behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finllm.errors import InputError
from finllm.plain_text import clean

if TYPE_CHECKING:
    from finllm.desk.request import RunRequest
    from finllm.tools.data.books.position import Portfolio
    from finllm.tools.data.market import MarketStore

CONFIRMED = "yes"
MOST = 1.0
"""A trade worth more than so many times the book's gross value is asked about."""


def size_of(portfolio: Portfolio, id: str) -> float:
    """How much of it is held: units, or money of a position that is held by its value; 0 where it is not."""
    for one in portfolio.positions:
        if one.id == id:
            return (one.quantity if one.quantity is not None else one.market_value) or 0.0
    return 0.0


def traded(typed: str, before: RunRequest, after: RunRequest) -> str:
    """The position before and after a trade, as it was typed: `AAPL: 2,000 held, 1,000 after the trade`."""
    held = (one.id for one in (*after.portfolio.positions, *before.portfolio.positions))
    id = next((one for one in held if one.casefold() == typed.casefold()), typed)
    was, now = size_of(before.portfolio, id), size_of(after.portfolio, id)
    return f"{clean(id)}: {was:,.10g} held, {now:,.10g} after the trade"


def check_proportion(before: RunRequest, after: Portfolio, id: str, quantity: float, market: MarketStore) -> None:
    """Errors: InputError for a trade out of proportion, with how it compares to the position and to the book."""
    from finllm.tools.data.books.valuation import value_portfolio

    was, now = size_of(before.portfolio, id), size_of(after, id)
    old, new = (value_portfolio(one, market, before.as_of, before.currency) for one in (before.portfolio, after))
    held = [sum(one.market_value for one in book.holdings if one.id == id) for book in (old, new)]
    worth, gross = abs(held[1] - held[0]), old.gross
    turns = now and (was > 0) != (now > 0) and (was or now < 0)
    if not turns and worth <= MOST * gross:
        return
    times = f"{abs(quantity / was):,.3g} times the {abs(was):,.10g} held" if was else "of which none is held"
    leaves = f", and leaves {'a short of ' if now < 0 else ''}{abs(now):,.10g}" if turns else ""
    share = f"{worth / gross:,.2g} times the book's gross value" if gross else "the book is worth nothing"
    raise InputError(f"that {'sells' if quantity < 0 else 'buys'} {abs(quantity):,.10g} {clean(id)}, {times}{leaves}: "
                     f"{worth:,.0f} {before.currency}, {share}",
                     fix=f"if that is meant: trade {clean(id)} {quantity:.10g} {CONFIRMED}")  # fmt: skip

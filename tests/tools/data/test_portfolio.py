"""Portfolios in: what is read, what is refused with its place, and what a book leaves out with its weight."""

import datetime as dt
from pathlib import Path

import pandas as pd
import pytest

from finllm.errors import InputError
from finllm.tools.data.books.book import Book
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.limits import load_limits
from finllm.tools.data.market import MarketStore

D = dt.date
AS_OF = D(2022, 6, 30)
HEAD = "id,quantity,market_value,currency,asset_class,sector,duration,convexity,beta,delta"


def book_of(tmp_path: Path, *rows: str, as_of: dt.date = AS_OF, market: MarketStore | None = None) -> Book:
    path = tmp_path / "book.csv"
    path.write_text("\n".join([HEAD, *rows]) + "\n")
    return value_portfolio(load_portfolio(path), market or MarketStore(), as_of)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".xlsx"])
def test_the_three_formats_read_the_same(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame(
        {
            "id": ["AAPL", "BOND"],
            "quantity": [100, None],
            "market_value": [None, 5e5],
            "currency": ["USD", "USD"],
            "asset_class": ["equity", "bond"],
            "duration": [None, 6.5],
        }
    )
    path = tmp_path / f"book{suffix}"
    write = {".csv": frame.to_csv, ".parquet": frame.to_parquet, ".xlsx": frame.to_excel}[suffix]
    write(path, index=False)
    stock, bond = load_portfolio(path).positions
    assert (stock.id, stock.quantity, stock.market_value) == ("AAPL", 100, None)
    assert (bond.id, bond.market_value, bond.duration) == ("BOND", 500_000, 6.5)


ROW = "AAPL,100,,USD,equity,Technology,,,,"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the portfolio is empty"),
        (HEAD + "\n", "the portfolio is empty"),
        ("id,quantity,currency\nAAPL,1,USD\n", "row 1: no column 'asset_class'; add it"),
        ("id,currency,asset_class\nAAPL,USD,equity\n", "row 1: no column 'quantity' or 'market_value'"),
        (HEAD.replace("duration", "durration") + f"\n{ROW}\n", "row 1: column 'durration' may be 'duration'"),
        (HEAD.replace("beta", "betta") + f"\n{ROW}\n", "row 1: column 'betta' may be 'beta' or a tag of your own"),
        (f"{HEAD},beta\n{ROW},1\n", "row 1: column 'beta' appears twice"),
        (f"{HEAD}\n{ROW}\n{ROW}\n", "row 3, column 'id': 'AAPL' is already in row 2"),
        (f"{HEAD}\n,100,,USD,equity,,,,,\n", "row 2, column 'id': is empty"),
        (f"{HEAD}\nAAPL,NaN,,USD,equity,,,,,\n", "row 2, column 'quantity': 'NaN' is not a finite number"),
        (f"{HEAD}\nAAPL,,inf,USD,equity,,,,,\n", "row 2, column 'market_value': 'inf' is not a finite number"),
        (f"{HEAD}\nAAPL,ten,,USD,equity,,,,,\n", "row 2, column 'quantity': 'ten' is not a number"),
        (f"{HEAD}\nAAPL,,,USD,equity,,,,,\n", "row 2, columns 'quantity' and 'market_value': neither is given"),
        (f"{HEAD}\nAAPL,1,,USD,crypto,,,,,\n", "row 2, column 'asset_class': 'crypto' is not one of equity"),
        (f"{HEAD}\nAAPL,1,,dollars,equity,,,,,\n", "row 2, column 'currency': 'dollars' is not a three-letter code"),
        (f"{HEAD}\nAAPL,1,,,equity,,,,,\n", "row 2, column 'currency': '' is not a three-letter code"),
        (f"{HEAD}\nB,,1000,USD,bond,,,,,\n", "row 2, column 'duration': a bond needs one"),
        (f"{HEAD}\nB,,1000,USD,bond,,-3,,,\n", "row 2, column 'duration': -3 is not between 0 and 100"),
        (f"{HEAD}\nB,,1000,USD,bond,,7,-5000,,\n", "row 2, column 'convexity': -5000 is not between -100 and"),
        (f"{HEAD}\nAAPL,1,,USD,equity,,,,250,\n", "row 2, column 'beta': 250 is not between -20 and 20"),
        (f"{HEAD}\nV,,0,USD,volatility,,,,,\n", "row 2, column 'delta': a volatility position needs one"),
    ],
)
def test_a_bad_portfolio_is_refused_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "book.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=says) as refused:
        load_portfolio(path)
    assert str(path) in refused.value.message
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.csv", None, "no portfolio at"),
        ("book.json", b"{}", "a portfolio is a .csv, .tsv, .txt, .parquet or .xlsx file, not '.json'"),
        ("book.xlsx", b"not a workbook", "cannot be read"),
        ("book.parquet", b"not parquet", "cannot be read"),
    ],
)
def test_an_unreadable_portfolio_is_refused(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        load_portfolio(path)


def test_every_problem_is_listed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "book.csv"
    path.write_text(f"{HEAD}\nAAPL,NaN,,USD,meme,,,,,\nB,,1,USD,bond,,,,,\n")
    with pytest.raises(InputError) as refused:
        load_portfolio(path)
    first, second = refused.value.message.splitlines()
    assert "row 2, column 'quantity': 'NaN' is not a finite number" in first
    assert "column 'asset_class': 'meme' is not one of" in first
    assert "row 3, column 'duration': a bond needs one" in second
    assert refused.value.fix.startswith("correct the cells named")


def test_a_quantity_is_valued_at_the_last_close(tmp_path: Path) -> None:
    (holding,) = book_of(tmp_path, "AAPL,-100,,USD,equity,Technology,,,,").holdings
    assert holding.price == pytest.approx(MarketStore().read("AAPL", AS_OF).values.iloc[-1])
    assert holding.market_value == pytest.approx(-100 * (holding.price or 0))
    assert (holding.price_date, holding.sector) == (AS_OF, "Technology")


def test_what_cannot_be_valued_is_left_out_with_its_reason_and_weight(tmp_path: Path) -> None:
    book = book_of(
        tmp_path,
        "KEPT,,-750,USD,equity,,,,1.2,",
        "ROUBLES,,100,RUB,equity,,,,1,",
        "UNLISTED,10,,USD,equity,,,,1,",
        "NO_BETA,,250,USD,equity,,,,,",
        "WTI,10,,USD,commodity,,,,,",
        "VIX,10,,USD,volatility,,,,,1000",
    )
    assert [holding.id for holding in book.holdings] == ["KEPT"]
    left_out = {one.id: (one.reason, one.weight) for one in book.exclusions}
    assert left_out["ROUBLES"] == ("in RUB: the rates of RUB stopped on 2022-03-01, while others went on", None)
    assert left_out["UNLISTED"] == ("given by quantity, and there is no price series of that name", None)
    by_greeks = 1000 * float(MarketStore().read("VIX", AS_OF).values.iloc[-1])
    assert left_out["NO_BETA"] == ("no history and no beta", pytest.approx(250 / (1000 + by_greeks)))
    assert left_out["WTI"] == ("its last price, of 2019-01-03, is 1274 days old", None)
    assert "is not a price" in left_out["VIX"][0]


def test_a_book_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing of portfolio 'book' can be valued at 2022-06-30"):
        book_of(tmp_path, "DIRHAMS,,100,AED,equity,,,,1,")


def test_an_old_price_is_used_and_named_with_its_age(tmp_path: Path) -> None:
    book = book_of(tmp_path, "WTI,1000,,USD,commodity,,,,,", as_of=D(2019, 3, 29))
    assert book.value == pytest.approx(46_920)
    assert any("'WTI' is valued at its last price, of 2019-01-03, 85 days before 2019-03-29" in n for n in book.notes)


def test_the_book_says_that_it_is_in_usd_and_what_it_does_not_use(tmp_path: Path) -> None:
    book = book_of(tmp_path, "AAPL,100,,USD,equity,,,,,0.5")
    assert "USD" in book.notes[0]
    assert any(note.startswith("delta of 'AAPL' is not used") for note in book.notes)


def test_a_young_instrument_needs_a_beta(tmp_path: Path) -> None:
    days = pd.bdate_range("2022-06-01", "2022-06-30")
    pd.DataFrame({"YOUNG": 10.0}, index=days).to_parquet(tmp_path / "prices.parquet")
    market = MarketStore([tmp_path / "prices.parquet"])
    row = "AAPL,1,,USD,equity,,,,,"
    without = book_of(tmp_path, row, "YOUNG,5,,USD,equity,,,,,", market=market)
    assert "days of history shared with the S&P 500" in without.exclusions[0].reason
    assert without.exclusions[0].weight == pytest.approx(50 / (50 + without.value))
    assert not book_of(tmp_path, row, "YOUNG,5,,USD,equity,,,,1.5,", market=market).exclusions


def test_limits_are_read(tmp_path: Path) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text("version: 1\nloss_by_position: {each: 1e5, AAPL: 50000}\nvar_975_1d: 20000\nrestricted: [ACME]\n")
    limits = load_limits(path)
    assert limits.loss_by_position["AAPL"] == 50_000
    assert limits.restricted == ["ACME"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "limits.yaml:1: limits are a mapping"),
        ("version: [1\n", "limits.yaml:2: not YAML"),
        ("loss_by_factor: {}\n", "limits.yaml:1: field 'version': is not there; add it"),
        ("version: 1\nvar_975_1d: -5\n", "limits.yaml:2: field 'var_975_1d'"),
        ("version: 1\nloss_by_sector:\n  Energy: lots\n", "limits.yaml:3: field 'loss_by_sector.Energy'"),
        ("version: 1\nloss: 5\n", "limits.yaml:2: field 'loss': is no field of this"),
        ("version: 1\nloss_by_factor:\n  VIX: 1\n  VIX: 900\n", "limits.yaml:4: .*the key 'VIX' stands twice"),
    ],
)
def test_bad_limits_are_refused_with_their_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        load_limits(path)


def test_missing_limits_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no limits at"):
        load_limits(tmp_path / "limits.yaml")

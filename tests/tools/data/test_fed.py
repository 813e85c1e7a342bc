"""The Federal Reserve's files: what is read, what is refused with its row, when it is visible, and what it feeds."""

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finllm.errors import InputError
from finllm.scenarios import PORTFOLIOS_DIR, SCENARIOS_DIR
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.fed import VARIABLES, import_fed, load_fed
from finllm.tools.data.market import MarketStore
from finllm.tools.data.scenario import load_scenario
from finllm.tools.pnl.engine import run_engine
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.history import history

D = dt.date
SHARED = Path(__file__).resolve().parents[4] / "shared" / "fed"
needs_files = pytest.mark.skipif(not SHARED.is_dir(), reason="the Federal Reserve's files are not beside the checkout")

DOMESTIC = (
    "Scenario Name,Date,Real GDP growth,Nominal GDP growth,Real disposable income growth,"
    "Nominal disposable income growth,Unemployment rate,CPI inflation rate,3-month Treasury rate,5-year Treasury yield,"
    "10-year Treasury yield,BBB corporate yield,Mortgage rate,Prime rate,Dow Jones Total Stock Market Index (Level),"
    "House Price Index (Level),Commercial Real Estate Price Index (Level),Market Volatility Index (Level)"
)
INTERNATIONAL = (
    "Scenario Name,Date,Euro area real GDP growth,Euro area inflation,"
    "Euro area bilateral dollar exchange rate (USD/euro),Developing Asia real GDP growth,Developing Asia inflation,"
    '"Developing Asia bilateral dollar exchange rate (F/USD, index)",Japan real GDP growth,Japan inflation,'
    "Japan bilateral dollar exchange rate (yen/USD),U.K. real GDP growth,U.K. inflation,"
    "U.K. bilateral dollar exchange rate (USD/pound)"
)


def quarters(n: int) -> list[str]:
    return [f"{2000 + at // 4} Q{at % 4 + 1}" for at in range(n)]


def write(folder: Path, domestic: list[str] | None = None, international: list[str] | None = None) -> Path:
    """Two small tables, made up, in the layout of the files."""
    made = [f"Actual,{quarter},1,2,1,2,5,2,{2 + at},3,{4 + at},{6 + at},6,7,{100 + at},100,100,20"
            for at, quarter in enumerate(quarters(4))]  # fmt: skip
    abroad = [
        f"Actual,{quarter},1,2,{1.1 - at / 10:.1f},5,3,100,1,0,120,2,2,1.6" for at, quarter in enumerate(quarters(4))
    ]
    for name, header, rows in (
        ("2025-Table_1A_Historic_Domestic.csv", DOMESTIC, made if domestic is None else domestic),
        ("2025-Table_1B_Historic_International.csv", INTERNATIONAL, abroad if international is None else international),
    ):
        (folder / name).write_text("\n".join([header, *rows]) + "\n")
    return folder


def test_the_files_become_series_with_their_source(tmp_path: Path) -> None:
    found = import_fed(write(tmp_path), tmp_path / "out")
    assert (found.variables, found.quarters, found.first, found.last) == (28, 4, D(2000, 1, 1), D(2000, 10, 1))
    assert set(found.sources) == {"2025-Table_1A_Historic_Domestic.csv", "2025-Table_1B_Historic_International.csv"}
    market = MarketStore(extra=load_fed(tmp_path / "out"))
    assert market.read("FED_UST_10Y", D(2001, 1, 1)).values.tolist() == [4, 5, 6, 7]
    assert market.read("FED_BBB_SPREAD", D(2001, 1, 1)).values.tolist() == [200, 200, 200, 200]
    dollar = market.read("FED_USD", D(2001, 1, 1)).values
    assert dollar.iloc[0] == pytest.approx(100)
    assert dollar.iloc[1] == pytest.approx(100 * (1.1 / 1.0) ** 0.25)
    assert market.source("FED_USD", "x").uri.endswith("history.parquet")
    assert len(VARIABLES) == 28


@pytest.mark.parametrize(
    ("as_of", "last"),
    [(D(2000, 9, 30), D(2000, 4, 1)), (D(2000, 10, 1), D(2000, 7, 1)), (D(2000, 12, 31), D(2000, 7, 1))],
)
def test_a_quarter_is_visible_from_the_next_one_and_not_stale_by_then(
    tmp_path: Path, as_of: dt.date, last: dt.date
) -> None:
    import_fed(write(tmp_path), tmp_path / "out")
    seen = MarketStore(extra=load_fed(tmp_path / "out")).read("FED_UST_10Y", as_of)
    assert (seen.last, seen.stale) == (last, False)


def row(quarter: str, at: int = 4, value: str = "5") -> str:
    cells = ["1"] * 16
    cells[at] = value
    return f"Actual,{quarter},{','.join(cells)}"


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([row("2000 Q1"), row("2000 Q1")], "row 3: 2000 Q1 does not follow the quarter before it"),
        ([row("2000 Q2"), row("2000 Q1")], "row 3: 2000 Q1 does not follow"),
        ([row("2000 Q1"), row("2000 Q4")], "row 3: 2000 Q4 does not follow"),
        ([row("March 2000")], "row 2: not 18 cells with a quarter"),
        (["Actual,2000 Q1,1,2"], "row 2: not 18 cells with a quarter"),
        ([row("2000 Q1", value="n/a")], "row 2: FED_UNEMPLOYMENT is 'n/a', not a number"),
        ([row("2000 Q1", value="inf")], "row 2: FED_UNEMPLOYMENT is 'inf', not a number"),
        ([row("2000 Q1", 13, "0")], "row 2: FED_HPI is '0', not a number above zero"),
        ([row("2000 Q1"), row("2000 Q2", value=""), row("2000 Q3")], "FED_UNEMPLOYMENT has a gap inside its history"),
        ([], "no quarter"),
        ([row("2000 Q1")], "its quarters are not those of"),
    ],
)
def test_a_bad_file_is_refused_with_its_row(tmp_path: Path, rows: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says) as refused:
        import_fed(write(tmp_path, domestic=rows), tmp_path / "out")
    assert "2025-Table_1" in refused.value.message
    assert not (tmp_path / "out").exists()


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file \*Table_1A_Historic_Domestic.csv"):
        import_fed(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="no folder"):
        import_fed(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(InputError, match="nothing was imported into"):
        load_fed(tmp_path / "out")
    write(tmp_path)
    (tmp_path / "2025-Table_1A_Historic_Domestic.csv").write_text("date,GDP\n2000,1\n")
    with pytest.raises(InputError, match="not the Federal Reserve's header; missing: Scenario Name"):
        import_fed(tmp_path, tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "history.parquet").write_text("not parquet")
    with pytest.raises(InputError, match="cannot be read"):
        load_fed(tmp_path / "out")


@needs_files
def test_the_published_files_feed_the_covariance(tmp_path: Path) -> None:
    found = import_fed(SHARED, tmp_path)
    assert (found.variables, found.quarters, found.path_quarters) == (28, 196, 13)
    assert (found.first, found.last) == (D(1976, 1, 1), D(2024, 10, 1))
    market = MarketStore(extra=load_fed(tmp_path))
    factors = FactorSet.default(market)
    names = ("EQUITY_US", "RATE_US_10Y", "USD_BROAD", "CREDIT_BBB", "HOUSE_PRICES")
    shared = history([factors[name] for name in names], market, D(2022, 12, 28))
    assert shared.names == names
    assert shared.frequency == "quarterly"
    assert str(shared.moves.index[-1])[:10] == "2022-07-01"  # the fourth quarter is not over
    correlation = np.corrcoef(shared.moves.to_numpy(), rowvar=False)[0]
    assert correlation[names.index("CREDIT_BBB")] < -0.5
    portfolio = load_portfolio(PORTFOLIOS_DIR / "default.csv")
    result = run_engine(portfolio, market, D(2022, 12, 28), 63, [factors.parse("EQUITY_US", "-20%")], propagate=True)
    moved = {one.factor: one.origin for one in result.shocks}
    assert moved["RATE_US_10Y"] == "completed"
    assert "quarterly moves" in result.alignment


@needs_files
def test_the_shipped_scenario_has_the_published_figures(tmp_path: Path) -> None:
    import_fed(SHARED, tmp_path)
    start = pd.read_parquet(tmp_path / "history.parquet").loc["2024-10-01"]
    path = pd.read_parquet(tmp_path / "severely-adverse.parquet")
    end = path.loc["2025-10-01"]
    assert path["FED_STOCKS"].idxmin() == pd.Timestamp("2025-10-01")
    dollar = [
        end["FED_ASIA_PER_USD"] / start["FED_ASIA_PER_USD"], end["FED_JPY_PER_USD"] / start["FED_JPY_PER_USD"],
        start["FED_USD_PER_EUR"] / end["FED_USD_PER_EUR"], start["FED_USD_PER_GBP"] / end["FED_USD_PER_GBP"],
    ]  # fmt: skip
    wanted = {
        "EQUITY_US": end["FED_STOCKS"] / start["FED_STOCKS"] - 1,
        "RATE_US_10Y": 100 * (end["FED_UST_10Y"] - start["FED_UST_10Y"]),
        "CREDIT_BAA_AAA": 100 * (end["FED_BBB"] - end["FED_UST_10Y"] - start["FED_BBB"] + start["FED_UST_10Y"]),
        "USD_BROAD": np.prod(dollar) ** 0.25 - 1,
        "VIX": end["FED_VIX"] - start["FED_VIX"],
    }
    scenario = load_scenario(SCENARIOS_DIR / "fed-severely-adverse-2025.yaml")
    assert scenario.path is not None
    assert (scenario.path.moves, len(scenario.path.steps)) == ("start", 9)
    (trough,) = (one for one in scenario.path.steps if one.label == "2025 Q4")
    assert {entry.factor: entry.parsed().amount for entry in trough.shocks} == pytest.approx(wanted, rel=0.004)
    quarters = path.loc["2025-01-01":"2027-01-01"]
    assert len(quarters) == 9
    for step, (_, row) in zip(scenario.path.steps, quarters.iterrows(), strict=True):
        given = {entry.factor: entry.parsed().amount for entry in step.shocks}
        assert given["EQUITY_US"] == pytest.approx(row["FED_STOCKS"] / start["FED_STOCKS"] - 1, abs=0.0006)
        assert given["RATE_US_10Y"] == pytest.approx(100 * (row["FED_UST_10Y"] - start["FED_UST_10Y"]), abs=0.6)
        assert given["VIX"] == pytest.approx(row["FED_VIX"] - start["FED_VIX"], abs=0.06)


def test_the_shipped_scenario_runs_without_the_files() -> None:
    scenario = load_scenario(SCENARIOS_DIR / "fed-severely-adverse-2025.yaml")
    portfolio = load_portfolio(PORTFOLIOS_DIR / "default.csv")
    assert scenario.path is not None
    shocks = [entry.parsed() for entry in scenario.path.steps[3].shocks]
    result = run_engine(portfolio, MarketStore(), scenario.as_of, scenario.horizon, shocks, propagate=True)
    rows = {one.factor: one for one in result.shocks}
    assert -0.5 < float(result.total) / float(result.book_value) < -0.2
    assert "unpropagated" in rows["RATE_US_10Y"].flags[0]
    assert rows["OIL_WTI"].origin == "completed"
    assert rows["OIL_WTI"].move >= -0.95

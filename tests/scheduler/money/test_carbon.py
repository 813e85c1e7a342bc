"""Grid intensity: what is known at a time and what is not, never two kinds at once, and the cheapest start."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finllm.errors import InputError
from finllm.scheduler.money.amount import Amount
from finllm.scheduler.money.carbon import CarbonSeries, Constant, Grid
from finllm.scheduler.money.carbon_file import open_grid, read_grid

DAY = dt.datetime(2022, 1, 1, tzinfo=dt.UTC)
HOUR = 3600.0
MAPS = (
    "Datetime (UTC),Country,Zone Name,Zone Id,Carbon Intensity gCO₂eq/kWh (direct),"
    "Carbon Intensity gCO₂eq/kWh (LCA),Low Carbon Percentage\n"
    "2022-01-01 00:00:00,Spain,Spain,ES,133.64,175.54,76.35\n"
    "2022-01-01 01:00:00,Spain,Spain,ES,139.1,181.54,75.69\n"
)


def hourly(*values: float, zone: str = "ES") -> CarbonSeries:
    return CarbonSeries(zone, [DAY.timestamp() + at * HOUR for at in range(len(values))], values, "average", "a table")


def after(hours: float) -> dt.datetime:
    return DAY + dt.timedelta(hours=hours)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "grid.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_joule_emits_what_its_hour_does_and_says_on_what_basis() -> None:
    grams = hourly(100, 360).at(after(1.5)).of(Amount(3.6e6, "measured", "RAPL"))
    assert (grams.value, grams.kind, grams.provenance) == (pytest.approx(360.0), "average", "table")
    assert grams.basis == "RAPL; 360 gCO₂e/kWh average, a table, 2022-01-01 01:00:00Z"


def test_an_electricity_maps_export_is_read_by_either_accounting(tmp_path: Path) -> None:
    path = written(tmp_path, MAPS)
    assert read_grid(path, None, "average").at("ES", after(1)).value == 181.54
    assert read_grid(path, None, "average", "direct").at("ES", after(0.5)).value == 133.64


def test_an_export_of_averages_is_not_taken_for_marginal(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="average intensity, not marginal"):
        read_grid(written(tmp_path, MAPS), None, "marginal")


def test_the_simple_form_may_name_its_zones(tmp_path: Path) -> None:
    path = written(tmp_path, "time,gco2_per_kwh,zone\n2022-01-01T00:00Z,100,A\n2022-01-01T00:00Z,7,B\n"
                             "2022-01-01T01:00Z,200,A\n2022-01-01T01:00Z,8,B\n")  # fmt: skip
    grid = read_grid(path, None, "marginal")
    assert grid.zones == ("A", "B")
    assert grid.at("B", after(1.2)).value == 8
    assert grid.at("A", after(0)).kind == "marginal"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time,gco2_per_kwh\n2022-01-01T00:00Z,-3\n", "line 2: the grid intensity is -3"),
        ("time,gco2_per_kwh\n2022-01-01T00:00Z,nan\n", "line 2: the grid intensity is nan"),
        ("time,gco2_per_kwh\nyesterday,3\n", "line 2: 'yesterday' is no time"),
        ("time,gco2_per_kwh\n2022-01-01T00:00Z,many\n", "'many' is no intensity"),
        ("time,gco2_per_kwh\n2022-01-01T01:00Z,1\n2022-01-01T00:00Z,1\n", "goes back in time at 2022-01-01 00:00"),
        ("time,gco2_per_kwh\n2022-01-01T01:00Z,1\n2022-01-01T01:00Z,1\n", "goes back in time"),
        ("time,gco2_per_kwh\n2022-01-01T01:00Z,1\n", "1 rows"),
        ("time,gco2_per_kwh\n", "holds no grid intensity"),
        ("when,what\n1,2\n", "columns when, what"),
        ("", "columns of an empty file"),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_what_mends_it(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as failure:
        read_grid(written(tmp_path, text), "ES", "average")
    assert said in failure.value.message
    assert failure.value.fix


def test_a_negative_constant_and_an_unknown_zone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is -5"):
        open_grid("-5", "ES", "average")
    with pytest.raises(InputError, match="cannot read the grid intensity"):
        open_grid(str(tmp_path / "absent.csv"), None, "average")
    with pytest.raises(InputError, match="no grid intensity of zone 'FR'") as failure:
        open_grid("120", "ES", "average").at("FR", DAY)
    assert "ES" in failure.value.fix


def test_two_kinds_are_not_put_side_by_side() -> None:
    with pytest.raises(InputError, match="average and marginal"):
        Grid([Constant("ES", 1.0), Constant("FR", 1.0, "marginal")])


def test_nothing_is_said_of_times_that_the_series_does_not_cover() -> None:
    gap = CarbonSeries("ES", [DAY.timestamp() + at * HOUR for at in (0, 1, 2, 5)], [1, 2, 3, 4], "average", "a table")
    assert gap.at(after(2.9)).value == 3
    for hours, said in ((-0.1, "covers 2022-01-01 00:00:00Z to 2022-01-01 06:00:00Z"), (6, "covers"), (3.5, "a gap")):
        with pytest.raises(InputError, match=said):
            gap.at(after(hours))
    with pytest.raises(InputError, match="a gap from 2022-01-01 03:00:00Z"):
        gap.cheapest(after(0), after(1), 4 * HOUR)
    with pytest.raises(InputError, match="has no zone"):
        gap.at(DAY.replace(tzinfo=None))


def test_work_waits_for_the_cheapest_hours_of_its_window() -> None:
    series = hourly(300, 200, 100, 50, 400, 10)
    found = series.cheapest(after(0.5), after(3), 2 * HOUR)
    assert (found.at, found.value) == (after(2), 75.0)
    assert found.now == pytest.approx((150 + 200 + 50) / 2)
    assert series.cheapest(after(1), after(1), HOUR).at == after(1)
    assert Constant("ES", 5.0).cheapest(after(1), after(4), HOUR).at == after(1)
    with pytest.raises(InputError, match="before it begins"):
        series.cheapest(after(2), after(1), HOUR)


@given(
    st.lists(st.floats(0, 1000), min_size=10, max_size=30),
    st.floats(0, 4),
    st.floats(0, 4),
    st.floats(0.01, 1.9),
)
def test_no_start_in_the_window_is_cheaper_than_the_one_found(
    values: list[float], earliest: float, window: float, hours: float
) -> None:
    series = hourly(*values)
    found = series.cheapest(after(earliest), after(earliest + window), hours * HOUR)
    for step in range(41):
        other = after(earliest + window * step / 40)
        mean = series.cheapest(other, other, hours * HOUR).value
        assert found.value <= mean + 1e-6
    assert after(earliest) <= found.at <= after(earliest + window)

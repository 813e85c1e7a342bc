"""The channels' table is whole and of known factors; opened channels tell directions and sizes by it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from finllm.tools.channels import NOTHING, STATES, Opened, State, channel_table, directions, pulls, sizes
from finllm.tools.data.factors import FACTOR_IDS, factor_table


def opened(channel: str, probability: float, state: State = "happens") -> Opened:
    return Opened(channel=channel, probability=probability, state=state, states={state: 1.0}, start=0, end=1)


def test_every_channel_is_defined_whole_and_moves_known_factors() -> None:
    assert len(channel_table()) >= 30
    for name, row in channel_table().items():
        assert row.means
        assert row.why
        assert set(row.moves) <= set(factor_table()), name
        assert all(row.moves.values()), f"{name}: a factor that is not moved is not named"
        assert name.startswith(NOTHING) == (not row.moves)
        assert bool(row.episodes) == bool(row.moves), name


def test_every_judged_factor_is_moved_both_ways_by_some_channel() -> None:
    for factor in FACTOR_IDS:
        assert {row.moves[factor] > 0 for row in channel_table().values() if factor in row.moves} == {True, False}


def test_a_channel_moves_its_factors_as_the_table_says_and_no_others() -> None:
    odds = directions([opened("policy_tighter", 0.9)], FACTOR_IDS)
    assert odds["RATE_US_10Y"] == pytest.approx({"up": 0.9, "down": 0.0, "none": 0.1})
    assert odds["EQUITY_US"] == pytest.approx({"up": 0.0, "down": 0.9, "none": 0.1})
    assert odds["OIL_WTI"] == {"up": 0.0, "down": 0.0, "none": 1.0}


def test_where_channels_fight_the_larger_decides_and_equal_ones_leave_it_open() -> None:
    fight = [opened("crude_supply_lost", 1.0), opened("technology_up", 1.0), opened("growth_down", 1.0)]
    odds = directions(fight, ("OIL_WTI", "VIX"))
    assert odds["OIL_WTI"] == {"up": 1.0, "down": 0.0, "none": 0.0}  # +3 against −2
    equal = directions([opened("crude_supply_lost", 1.0), opened("energy_demand_lost", 1.0)], ("OIL_WTI",))
    assert equal["OIL_WTI"] == {"up": 0.5, "down": 0.5, "none": 0.0}
    assert [one.size for one in pulls(fight, "OIL_WTI")] == [3, -2]


def test_what_is_feared_moves_less_than_what_happens_and_so_gives_way() -> None:
    feared = directions([opened("crude_supply_lost", 1.0, "feared"), opened("energy_demand_lost", 1.0)], ("OIL_WTI",))
    assert feared["OIL_WTI"]["down"] == 1.0
    assert sizes([opened("crude_supply_lost", 1.0)], ("OIL_WTI",))["OIL_WTI"]["large"] == 1.0
    assert sizes([opened("crude_supply_lost", 1.0, "feared")], ("OIL_WTI",))["OIL_WTI"]["medium"] == 1.0


def test_probabilities_of_a_direction_and_of_a_size_sum_to_one() -> None:
    many = [opened(name, 0.1 + 0.02 * at) for at, name in enumerate(channel_table())]
    for factor, odds in directions(many, FACTOR_IDS).items():
        assert sum(odds.values()) == pytest.approx(1.0)
        assert sum(sizes(many, (factor,))[factor].values()) == pytest.approx(1.0)


def test_where_no_channel_is_open_nothing_moves_and_nothing_has_a_size() -> None:
    assert directions([], FACTOR_IDS) == {factor: {"up": 0.0, "down": 0.0, "none": 1.0} for factor in FACTOR_IDS}
    assert sizes([opened("nothing_company", 1.0)], ("GOLD",)) == {"GOLD": {}}


def test_the_state_is_the_likeliest_and_a_span_runs_forward() -> None:
    assert set(STATES) == {"happens", "feared", "denied", "past"}
    one = opened("relief", 0.5).model_dump()
    with pytest.raises(ValidationError, match="likeliest"):
        Opened.model_validate(one | {"states": {"happens": 0.1, "feared": 0.9}})
    with pytest.raises(ValidationError, match="before"):
        Opened.model_validate(one | {"start": 2})

"""What a call costs: as its backend tells, else by a calibrated rate, else by a published table; always labelled."""

from __future__ import annotations

import datetime as dt

import pytest

from finllm.errors import InputError
from finllm.scheduler.backends import Generation, Offer
from finllm.scheduler.calibration.lookup import calibrated
from finllm.scheduler.calibration.measured import DecodeRate, Key, RungCalibration, Speed
from finllm.scheduler.money.amount import Amount
from finllm.scheduler.money.budget import Budget
from finllm.scheduler.money.carbon import CarbonSeries, Constant
from finllm.scheduler.money.costing import Costing, Rates
from finllm.scheduler.money.meter import Meter, Used
from finllm.scheduler.money.tariff import Tariff

EDGE = Offer("edge", "edge", "Q4_0", "sha256-of-edge", "llama 1", 4096)
FAR = Offer("far", "deep", "BF16", "sha256-of-far", "vllm 1", 4096)
SPEED = Speed(
    prefill_tokens_per_second=500.0, prefill_joules_per_token=0.02,
    decode=(DecodeRate(batch=1, tokens_per_second=50.0, joules_per_token=0.3),), memory_bytes=1,
    energy="measured", energy_basis="RAPL",
)  # fmt: skip
NOON = dt.datetime(2022, 1, 1, 12, tzinfo=dt.UTC)


def answer(joules: Amount | None = None) -> Generation:
    return Generation("{}", {}, 100, 20, 0.5, joules=joules)


def taken(**changes: str | int) -> RungCalibration:
    key = {"backend": "llama.cpp", "weights_sha256": EDGE.weights_sha256, "build": EDGE.build, "cpu": "Xeon",
           "threads": 2, "probes": "p"}  # fmt: skip
    return RungCalibration(key=Key.model_validate(key | changes), model="m", precision="Q4_0", speed=SPEED, quality={},
                           taken_at="2022-01-01T10:00:00+00:00", seconds=1.0)  # fmt: skip


def test_what_a_backend_measured_stays_measured() -> None:
    cost = Costing().of(EDGE, answer(Amount(4.0, "measured", "RAPL")))
    assert cost.joules == Amount(4.0, "measured", "RAPL")
    assert (cost.seconds, cost.tokens, cost.deep_tokens) == (0.5, 120, 0)


def test_without_a_reading_the_calibrated_rates_of_prompt_and_output_stand_in() -> None:
    costing = Costing(rates={"edge": Rates.of(SPEED)})
    joules = costing.of(EDGE, answer()).joules
    assert joules is not None
    assert joules.value == pytest.approx(100 * 0.02 + 20 * 0.3)
    assert joules.provenance == "modelled"
    assert "calibrated J per token" in joules.basis


def test_without_a_calibration_a_published_table_does_and_says_so() -> None:
    cost = Costing().of(FAR, answer())
    assert cost.joules is not None
    assert cost.joules.provenance == "table"
    assert "ML.ENERGY" in cost.joules.basis
    assert cost.deep_tokens == 120


def test_grams_and_dollars_follow_and_are_no_better_than_their_tables() -> None:
    costing = Costing(Constant("ES", 200.0), tariffs={"edge": Tariff(0.36), "far": Tariff(None, 0.1, 0.5)})
    edge = costing.of(EDGE, answer(Amount(3.6e6, "measured", "RAPL")))
    assert edge.grams is not None
    assert (edge.grams.value, edge.grams.provenance) == (pytest.approx(200.0), "table")
    assert edge.usd is not None
    assert (edge.usd.value, edge.usd.provenance) == (pytest.approx(0.36), "table")
    assert edge.usd.basis == "RAPL; 0.36 USD/kWh"
    far = costing.of(FAR, answer())
    assert far.usd is not None
    assert far.usd.value == pytest.approx((100 * 0.1 + 20 * 0.5) / 1e6)


def test_where_the_grids_series_ends_the_last_intensity_stands_and_says_so() -> None:
    now = [NOON + dt.timedelta(hours=1.5)]
    series = CarbonSeries("ES", [NOON.timestamp(), NOON.timestamp() + 3600], [100, 150], "average", "a table")
    costing = Costing(series, now=lambda: now[0])
    costing.of(EDGE, answer())
    now[0] = NOON + dt.timedelta(hours=3)
    grams = costing.of(EDGE, answer(Amount(3.6e6, "measured", "RAPL"))).grams
    assert grams is not None
    assert grams.value == pytest.approx(150)
    assert grams.basis.endswith("the last known")


def test_a_budget_that_nothing_is_counted_in_is_refused() -> None:
    with pytest.raises(InputError, match="needs the grid's intensity") as failure:
        Costing().check(Budget(grams=5.0), (EDGE,))
    assert "FINLLM_CARBON" in failure.value.fix
    with pytest.raises(InputError, match="needs the price of 'far'"):
        Costing(tariffs={"edge": Tariff(0.1)}).check(Budget(usd=1.0), (EDGE, FAR))
    Costing(Constant("ES", 1.0), tariffs={"edge": Tariff(0.1)}).check(Budget(grams=1.0, usd=1.0), (EDGE,))


def test_a_call_that_goes_on_has_cost_its_prompt_first() -> None:
    costing = Costing(rates={"edge": Rates(0.1, 1.0, "modelled", "rates")})
    assert costing.so_far(EDGE, Used(40), 100).of("joules") == pytest.approx(4.0)
    assert costing.so_far(EDGE, Used(110), 100).of("joules") == pytest.approx(20.0)


def test_a_meter_takes_no_reading_back() -> None:
    moved = list[int]()
    meter = Meter(lambda: moved.append(meter.used.tokens))
    for tokens in (5, 5, 9, 3):
        meter.read(Used(tokens))
    assert (meter.used.tokens, moved) == (9, [5, 9])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights_sha256": "others"}, "the weights of Q4_0 were others then"),
        ({"build": "llama 0"}, "build was llama 0, is llama 1"),
        ({"cpu": "EPYC"}, "CPU was EPYC, is Xeon"),
        ({"threads": 4}, "threads was 4, is 2"),
    ],
)
def test_a_calibration_of_something_else_is_stale_and_says_what_changed(
    changes: dict[str, str | int], said: str
) -> None:
    found = calibrated([taken(**changes)], EDGE, cpu="Xeon", threads=2, now=NOON, days=30)
    assert found.calibration is None
    assert found.stale == said
    assert "the default profile stands in; run 'finllm calibrate'" in found.words


def test_a_calibration_ages() -> None:
    for days, stale in ((29.0, None), (32.0, "it is 32 days old, and 30 are allowed")):
        now = dt.datetime(2022, 1, 1, 10, tzinfo=dt.UTC) + dt.timedelta(days=days)
        assert calibrated([taken()], EDGE, cpu="Xeon", threads=2, now=now, days=30).stale == stale
    early = calibrated([taken()], EDGE, cpu="Xeon", threads=2, now=NOON - dt.timedelta(days=2), days=30)
    assert "in the future" in (early.stale or "")
    assert "never" in calibrated([], EDGE, cpu="Xeon", threads=2, now=NOON, days=30).words

"""The calibration file: true only of what it was taken of, whole or absent, one row per rung and machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finllm.errors import BackendError, InputError
from finllm.models import default_source, ensure_rung
from finllm.scheduler.calibration import probe as calibration_probe
from finllm.scheduler.calibration.measured import (
    BATCHES,
    DecodeRate,
    Key,
    Quality,
    RungCalibration,
    Speed,
    find,
    keep,
    read_calibrations,
    wilson_lower,
)
from finllm.scheduler.calibration.probe import measure_rung, measure_speed
from finllm.scheduler.money import energy
from finllm.settings import Settings

KEY = Key(backend="llama_cpp", weights_sha256="a" * 64, build="1", cpu="Xeon", threads=2, probes="p")
SPEED = Speed(
    prefill_tokens_per_second=500.0, prefill_joules_per_token=0.01, memory_bytes=200_000_000, energy="modelled",
    energy_basis="CPU time", decode=tuple(DecodeRate(batch=b, tokens_per_second=50.0 * b, joules_per_token=0.1)
                                          for b in (1, 4)),
)  # fmt: skip
TAKEN = RungCalibration(
    key=KEY, model="m", precision="Q4_0", speed=SPEED, taken_at="2026-01-01T00:00:00+00:00", seconds=1.0,
    quality={"narrative": Quality(score=0.5, lower=0.2, chance=0.3, items=8)},
)  # fmt: skip


@pytest.mark.parametrize(
    "change", [{"weights_sha256": "b" * 64}, {"build": "2"}, {"cpu": "EPYC"}, {"threads": 4}, {"probes": "q"}]
)
def test_a_calibration_is_true_until_weights_build_cpu_threads_or_probes_change(
    change: dict[str, object], tmp_path: Path
) -> None:
    path = tmp_path / "c.json"
    keep(path, TAKEN)
    assert find(read_calibrations(path), KEY) == TAKEN
    assert find(read_calibrations(path), KEY.model_copy(update=change)) is None


def test_a_new_build_takes_the_old_one_s_place_and_another_machine_s_stays(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    newer = TAKEN.model_copy(update={"key": KEY.model_copy(update={"build": "2"})})
    elsewhere = TAKEN.model_copy(update={"key": KEY.model_copy(update={"cpu": "EPYC"})})
    for one in (TAKEN, elsewhere, newer):
        keep(path, one)
    assert [one.key for one in read_calibrations(path)] == [elsewhere.key, newer.key]


@pytest.mark.parametrize("spoilt", ["", "{", '{"version": 2, "rungs": []}', '{"version": 1, "rungs": [{}]}'])
def test_a_spoilt_file_is_no_calibration_and_is_replaced(tmp_path: Path, spoilt: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(spoilt, encoding="utf-8")
    assert read_calibrations(path) == ()
    keep(path, TAKEN)
    assert read_calibrations(path) == (TAKEN,)


def test_a_file_that_cannot_be_written_names_the_mend(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file", encoding="utf-8")
    with pytest.raises(InputError, match="FINLLM_HOME"):
        keep(tmp_path / "home" / "c.json", TAKEN)


def test_a_batch_between_two_measured_ones_is_read_at_the_larger() -> None:
    assert [SPEED.decode_at(batch).batch for batch in (1, 2, 4, 9)] == [1, 4, 4, 4]


def test_the_lower_bound_is_wilson_s() -> None:
    assert wilson_lower(0.5, 8) == pytest.approx(0.2486, abs=5e-4)
    assert wilson_lower(0.0, 8) == 0.0
    assert wilson_lower(1.0, 8) == pytest.approx(8 / (8 + 1.6449**2))


@given(score=st.floats(0, 1), items=st.integers(0, 10_000))
def test_the_lower_bound_is_below_the_score_and_above_nothing(score: float, items: int) -> None:
    assert 0.0 <= wilson_lower(score, items) <= score + 1e-12


class Clockwork:
    """A probe that takes exactly as long as it says."""

    def prefill(self, tokens: int) -> float:
        return tokens / 400

    def share(self, batch: int) -> None:
        """The prefix costs nothing here."""

    def decode(self, batch: int, steps: int) -> float:
        return steps * (0.02 + 0.001 * batch)


def test_rates_are_tokens_of_all_sequences_over_the_time_they_took() -> None:
    speed = measure_speed(Clockwork(), lambda: 7)
    assert speed.prefill_tokens_per_second == pytest.approx(400)
    assert {rate.batch: rate.tokens_per_second for rate in speed.decode} == {
        batch: pytest.approx(batch / (0.02 + 0.001 * batch)) for batch in BATCHES
    }
    assert speed.memory_bytes == 7


def test_what_else_the_machine_does_for_a_moment_does_not_count() -> None:
    class Disturbed(Clockwork):
        decoded = 0

        def decode(self, batch: int, steps: int) -> float:
            self.decoded += 1
            return super().decode(batch, steps) * (9 if self.decoded % 3 == 0 else 1)

    rates = [rate.tokens_per_second for rate in measure_speed(Disturbed(), lambda: 7).decode]
    assert rates == [rate.tokens_per_second for rate in measure_speed(Clockwork(), lambda: 7).decode]


def test_the_real_edge_rung_is_measured_in_a_process_of_its_own(ladder_home: Settings) -> None:
    rung = ensure_rung(default_source(ladder_home), "Q4_0", ladder_home)
    speed = measure_rung(rung.path, 1, (1, 4))
    assert speed.prefill_tokens_per_second > 20
    assert [rate.batch for rate in speed.decode] == [1, 4]
    assert speed.decode_at(4).tokens_per_second > speed.decode_at(1).tokens_per_second
    assert rung.bytes < speed.memory_bytes < 1_000_000_000
    assert speed.energy in ("measured", "modelled")
    assert speed.decode_at(1).joules_per_token > speed.decode_at(4).joules_per_token > 0


def test_a_file_that_does_not_load_or_a_child_that_dies_is_a_backend_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BackendError, match=r"cannot be measured: .*cannot load .*absent"):
        measure_rung(tmp_path / "absent.gguf", 1)
    monkeypatch.setattr(calibration_probe, "_CHILD", "import os; os.kill(os.getpid(), 6)")
    with pytest.raises(BackendError, match="exit status -6"):
        measure_rung(tmp_path / "absent.gguf", 1)


def rapl(folder: Path, package: int, part: int = 5) -> Path:
    for name, value in (("intel-rapl:0", package), ("intel-rapl:0:0", part)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "energy_uj").write_text(f"{value}\n")
        (folder / name / "max_energy_range_uj").write_text("1000000\n")
    return folder


def test_joules_are_measured_where_the_packages_may_be_read(tmp_path: Path) -> None:
    start = energy.read_counters(rapl(tmp_path, 400_000))
    spent = energy.between(start, energy.read_counters(rapl(tmp_path, 900_000, part=9_000)), energy.Cpu("any"))
    assert (spent.value, spent.provenance) == (0.5, "measured")
    wrapped = energy.between(start, energy.read_counters(rapl(tmp_path, 100_000)), energy.Cpu("any"))
    assert wrapped.value == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("cpu", "watts"),
    [(energy.Cpu("Xeon", "GenuineIntel", 6, 207), 350 / 64), (energy.Cpu("who knows"), energy.ASSUMED_WATTS)],
)
def test_joules_are_modelled_from_cpu_time_where_nothing_may_be_read(
    cpu: energy.Cpu, watts: float, tmp_path: Path
) -> None:
    before, after = energy.CounterReading({}, 10.0), energy.CounterReading({}, 12.0)
    assert energy.read_counters(tmp_path).microjoules == {}
    spent = energy.between(before, after, cpu)
    assert (spent.value, spent.provenance) == (pytest.approx(2 * watts), "modelled")
    assert f"{watts:.2f} W per core" in spent.basis


def test_a_counter_that_may_not_be_read_leaves_the_model(tmp_path: Path) -> None:
    counter = rapl(tmp_path, 1) / "intel-rapl:0" / "energy_uj"
    counter.unlink()
    counter.mkdir()
    assert energy.read_counters(tmp_path).microjoules == {}


def test_the_processor_is_read_from_cpuinfo(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(
        "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Xeon 8480\n\n"
    )
    assert energy.read_cpu(path) == energy.Cpu("Xeon 8480", "GenuineIntel", 6, 143)
    assert energy.read_cpu(tmp_path / "absent") == energy.Cpu("unknown")

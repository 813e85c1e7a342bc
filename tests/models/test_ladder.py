from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finllm.errors import InputError
from finllm.files import sha256_of_file
from finllm.models import ladder
from finllm.models.ladder import PRECISIONS, PRUNED, Rung, ensure_rung
from finllm.models.lora import Adapter
from finllm.models.registry import ModelSource, default_source
from finllm.settings import Settings


@pytest.fixture
def no_derivation(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> Rung:
        raise AssertionError("the rung was derived again")

    monkeypatch.setattr(ladder, "_derive", fail)


def small_rung(home: Settings, embedded: ModelSource) -> Rung:
    return ensure_rung(embedded, "Q4_0", home)


@pytest.fixture
def filled(home: Settings, tiny: ModelSource) -> Settings:
    """A home that holds the small rung, derived where the home was before."""
    before = home.model_copy(update={"home": home.home.with_name("before")})
    small_rung(before, tiny)
    before.home.rename(home.home)
    return home


FULL = tuple(precision for precision in PRECISIONS if precision != PRUNED)


@pytest.mark.parametrize("precision", FULL)
def test_every_precision_is_derived_and_states_its_tensor_mix(
    precision: str, ladder_home: Settings, embedded: ModelSource
) -> None:
    rung = ensure_rung(embedded, precision, ladder_home)
    assert rung.path == ladder_home.models_dir / embedded.sha256[:16] / f"{precision}.gguf"
    assert rung.path.read_bytes()[:4] == b"GGUF"
    assert rung.bytes == rung.path.stat().st_size
    assert rung.sha256 == sha256_of_file(rung.path)
    assert rung.source_sha256 == embedded.sha256
    assert sum(rung.tensor_mix.values()) == 272
    family = "Q4_K" if precision == "Q4_K_M" else precision
    assert family in rung.tensor_mix


def test_most_of_a_k_quant_is_something_else_at_width_576(ladder_home: Settings, embedded: ModelSource) -> None:
    mix = ensure_rung(embedded, "Q4_K_M", ladder_home).tensor_mix
    assert mix["Q5_0"] > mix["Q4_K"]


def test_a_rung_is_smaller_than_the_one_above(ladder_home: Settings, embedded: ModelSource) -> None:
    sizes = [ensure_rung(embedded, precision, ladder_home).bytes for precision in FULL]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.usefixtures("no_derivation")
def test_an_unknown_precision_names_those_known(home: Settings, tiny: ModelSource) -> None:
    with pytest.raises(InputError, match="unknown precision 'Q3_X'; use one of BF16, F16, Q8_0, Q4_K_M, Q4_0"):
        ensure_rung(tiny, "Q3_X", home)


@pytest.mark.usefixtures("no_derivation")
def test_the_pruned_rung_needs_an_adapter_of_fewer_layers_and_no_other_rung_has_one(
    home: Settings, tiny: ModelSource
) -> None:
    for precision, adapter, why in (
        (PRUNED, None, "no rung 'pruned': there is no adapter of fewer layers"),
        (PRUNED, Adapter(Path("a.gguf"), "0" * 64), "'a.gguf' is an adapter of all layers"),
        ("Q4_0", Adapter(Path("a.gguf"), "0" * 64, (0, 1)), "no rung 'Q4_0': 'a.gguf' is an adapter of fewer layers"),
    ):
        with pytest.raises(InputError, match=why):
            ensure_rung(tiny, precision, home, adapter=adapter)


def test_a_rung_is_reused(ladder_home: Settings, embedded: ModelSource, request: pytest.FixtureRequest) -> None:
    first = ensure_rung(embedded, "Q4_0", ladder_home)
    request.getfixturevalue("no_derivation")
    assert ensure_rung(embedded, "Q4_0", ladder_home) == first
    assert ensure_rung(embedded, "Q4_0", ladder_home, verify=True) == first


def test_a_home_that_moved_keeps_its_rungs(filled: Settings, tiny: ModelSource, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("no_derivation")
    assert small_rung(filled, tiny).path.is_relative_to(filled.home)


def test_progress_counts_the_tensors_and_llama_cpp_prints_nothing(
    home: Settings, embedded: ModelSource, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[str, int, int]] = []
    ensure_rung(embedded, "Q4_0", home, lambda *step: seen.append(step))
    assert seen[-1] == ("deriving Q4_0 from SmolLM2-135M-Instruct", 272, 272)
    assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})
    assert capfd.readouterr() == ("", "")


def test_a_cancelling_progress_leaves_no_rung_behind(home: Settings, tiny: ModelSource) -> None:
    def cancel(_what: str, done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_rung(tiny, "Q4_0", home, cancel)
    left = [path.name for path in (home.models_dir / tiny.sha256[:16]).iterdir()]
    assert left == [".Q4_0.lock"]


def test_a_changed_rung_is_derived_again(filled: Settings, tiny: ModelSource) -> None:
    first = small_rung(filled, tiny)
    with first.path.open("ab") as file:
        file.write(b"tail")
    assert small_rung(filled, tiny).sha256 == first.sha256
    assert sha256_of_file(first.path) == first.sha256


def test_verify_finds_a_changed_byte_behind_the_same_size_and_time(filled: Settings, tiny: ModelSource) -> None:
    first = small_rung(filled, tiny)
    stat = first.path.stat()
    with first.path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    os.utime(first.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert small_rung(filled, tiny) == first
    ensure_rung(tiny, "Q4_0", filled, verify=True)
    assert sha256_of_file(first.path) == first.sha256


@pytest.mark.parametrize("spoilt", ["", "{}", '{"rung": 1, "mtime_ns": 2}'])
def test_a_rung_without_a_whole_manifest_is_derived_again(
    filled: Settings, tiny: ModelSource, monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    first = small_rung(filled, tiny)
    derived: list[str] = []

    def derive(_folder: Path, wanted: ladder._Wanted, *_: object) -> Rung:
        derived.append(wanted.precision)
        return first

    monkeypatch.setattr(ladder, "_derive", derive)
    first.path.with_suffix(".json").write_text(spoilt, encoding="utf-8")
    small_rung(filled, tiny)
    assert derived == ["Q4_0"]


@pytest.mark.parametrize("keep", [200, 5_000, 40_000_000])
def test_a_truncated_source_is_the_users_to_mend(
    home: Settings, embedded: ModelSource, tmp_path: Path, keep: int
) -> None:
    cut = tmp_path / "cut.gguf"
    with embedded.path.open("rb") as file:
        cut.write_bytes(file.read(keep))
    settings = home.model_copy(update={"model": cut})
    with pytest.raises(InputError, match=r"cannot derive Q4_0 from .*cut\.gguf.*fetch the model file again"):
        ensure_rung(default_source(settings), "Q4_0", settings)
    assert not list(home.models_dir.rglob("*Q4_0.gguf"))
    assert not list(home.models_dir.rglob("*.partial"))


def test_a_source_with_a_spoilt_header_is_the_users_to_mend(
    home: Settings, embedded: ModelSource, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.gguf"
    with embedded.path.open("rb") as file:
        data = bytearray(file.read(1_000_000))
    data[4:4_000] = bytes(range(256)) * 15 + bytes(156)
    bad.write_bytes(data)
    settings = home.model_copy(update={"model": bad})
    with pytest.raises(InputError, match="cannot derive"):
        ensure_rung(default_source(settings), "Q4_0", settings)


def test_threads_that_ask_at_once_derive_once(
    home: Settings, tiny: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    derive = ladder._derive

    def counted(*args: object) -> Rung:
        calls.append("derived")
        return derive(*args)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(ladder, "_derive", counted)
    with ThreadPoolExecutor(3) as pool:
        rungs = list(pool.map(lambda _: small_rung(home, tiny), range(3)))
    assert calls == ["derived"]
    assert len({rung.sha256 for rung in rungs}) == 1


def test_two_processes_that_ask_at_once_agree(home: Settings, embedded: ModelSource) -> None:
    code = (
        "from pathlib import Path; from finllm.settings import Settings;"
        "from finllm.models import default_source, ensure_rung;"
        f"s = Settings(home=Path({str(home.home)!r}), threads=1);"
        "print(ensure_rung(default_source(s), 'Q4_0', s, verify=True).sha256)"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outcomes = [child.communicate(timeout=120) for child in children]
    assert [child.returncode for child in children] == [0, 0], outcomes
    assert len({out for out, _ in outcomes}) == 1


def test_a_home_that_cannot_be_written_names_the_mend(tmp_path: Path, tiny: ModelSource) -> None:
    (tmp_path / "home").write_text("a file", encoding="utf-8")
    settings = Settings(home=tmp_path / "home")  # pyright: ignore[reportCallIssue]
    with pytest.raises(InputError, match="FINLLM_HOME"):
        ensure_rung(tiny, "Q4_0", settings)

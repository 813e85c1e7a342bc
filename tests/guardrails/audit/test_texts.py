"""Source texts are kept whole before the record that names them; a changed or missing one is found."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finllm.errors import RecordAltered, RecordError
from finllm.guardrails.audit import LogReader, open_recorder
from finllm.guardrails.audit.bundle import bundle_of
from finllm.guardrails.audit.check_bundle import again
from finllm.guardrails.audit.home import check_texts
from finllm.memory.texts import Texts
from finllm.settings import Settings
from finllm.tools.evidence import sha256_of

TOLD = "Mines close the strait."
READ = "Crude jumped\x1b[2J\u202e on the news; the dollar did not move. Ünïcode, and all."


def request() -> dict[str, Any]:
    source = {"id": "wire", "url": "https://example.com", "text": READ, "published_at": "2022-06-29T00:00:00Z"}
    return {"scenario": {"title": "t", "narrative": TOLD, "sources": [source]}, "portfolio": {"sha256": "cd"}}


def report() -> dict[str, Any]:
    source = {"uri": "https://example.com", "sha256": sha256_of(READ), "pointer": f"characters 0–{len(READ)}"}
    rows = [{"id": "E1", "unit": "text", "value": READ[:9], "source": source},
            {"id": "E2", "unit": "usd", "value": 10.01, "formula": "given by the user"},
            {"id": "E3", "unit": "usd", "value": 5.0, "formula": "given by the user"},
            {"id": "E4", "unit": "usd", "value": 15.01, "formula": "sum(E2, E3)"},
            {"id": "E5", "unit": "ratio", "value": 15.01 / 5.0 - 1, "formula": "E4 / E3 − 1"}]  # fmt: skip
    return {"evidence": rows, "sources": [], "shocks": [], "findings": []}


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    """A home with one run, which wrote a report file."""
    settings = Settings(home=tmp_path / "home")
    with contextlib.closing(open_recorder(settings)) as ledger:
        ledger.start_run("run-1", request())
        ledger.end_run("run-1", "finished", report())
    return settings


def texts(home: Settings) -> Texts:
    return Texts(home.texts_dir)


def test_a_runs_texts_are_there_under_their_digests_and_its_record_names_them(home: Settings) -> None:
    assert texts(home).read(sha256_of(READ)) == READ.encode()
    (started,) = [body for _, data in LogReader(home.audit_dir).records()
                  if (body := json.loads(data)["body"])["action"] == "run.started"]  # fmt: skip
    assert started["texts"] == sorted([sha256_of(READ), sha256_of(TOLD)])
    held = check_texts(texts(home), LogReader(home.audit_dir))
    assert (held.compared, held.problems, held.notes) == (2, (), ())


def test_a_text_that_cannot_be_kept_lets_no_run_begin(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with contextlib.closing(open_recorder(settings)) as ledger:
        settings.texts_dir.write_text("a file where the folder would be")
        with pytest.raises(RecordError, match="cannot keep a source's text"):
            ledger.start_run("run-1", request())
        assert ledger.run("run-1") is None
    assert not [data for _, data in LogReader(settings.audit_dir).records() if b"run.started" in data]


def test_a_changed_and_a_missing_text_are_found_and_named(home: Settings) -> None:
    paths = {name: home.texts_dir / name[:2] / name for name in texts(home).names()}
    paths[sha256_of(READ)].write_text("Crude fell.")
    paths[sha256_of(TOLD)].unlink()
    held = check_texts(texts(home), LogReader(home.audit_dir))
    assert sorted(problem.split(" that run")[0] for problem in held.problems) == sorted(
        f"the text {sha256_of(text)[:12]}" for text in (READ, TOLD)
    )
    with pytest.raises(RecordAltered, match="was changed since it was kept"):
        texts(home).read(sha256_of(READ))
    with pytest.raises(RecordError):
        bundle_of(LogReader(home.audit_dir), "run-1", texts=texts(home))


def test_a_text_is_kept_once_and_nobody_else_may_enter(home: Settings) -> None:
    path = home.texts_dir / sha256_of(READ)[:2] / sha256_of(READ)
    before = path.stat().st_mtime_ns
    texts(home).keep([READ])
    assert path.stat().st_mtime_ns == before
    assert path.stat().st_mode & 0o077 == 0
    assert home.texts_dir.stat().st_mode & 0o077 == 0


def test_a_text_that_no_record_names_is_told_and_is_no_damage(home: Settings) -> None:
    texts(home).keep(["of a run whose process died"])
    held = check_texts(texts(home), LogReader(home.audit_dir))
    assert not held.problems
    assert "1 texts that no run on record reads" in held.notes[0]


def test_a_bundle_carries_the_texts_and_its_own_script_holds_them(home: Settings, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    written(bundle, bundle_of(LogReader(home.audit_dir), "run-1", texts=texts(home)))
    found = checked(bundle)
    assert (found["ok"], found["texts"], found["cited"], found["sums"]) == (True, 2, 1, 2)
    text = bundle / "texts" / sha256_of(READ)
    for spoil in (lambda: text.write_text("Crude fell."), text.unlink,
                  lambda: (bundle / "texts" / sha256_of("more")).write_text("more")):  # fmt: skip
        kept = text.read_bytes() if text.exists() else READ.encode()
        spoil()
        assert not checked(bundle)["ok"]
        text.write_bytes(kept if kept == READ.encode() else READ.encode())
    (bundle / "texts" / sha256_of("more")).unlink()
    assert checked(bundle)["ok"]


@pytest.mark.parametrize(("formula", "found"), [
    ("sum(E1, E2)", 5.0), ("E1 × E2", 6.0), ("(E1 − E2) / E2 + 1", 2 / 3), ("max(E1, E2)", 3.0), ("-E1", -2.0),
    ("E1 / σ of a forecast", None), ("rank", None), ("__import__('os')", None), ("E1.real", None), ("E9 + 1", None),
    ("E1 / 0", None), ("[E1 for E1 in E2]", None), ("(" * 400 + "E1" + ")" * 400, None),
])  # fmt: skip
def test_the_script_of_a_bundle_does_sums_and_runs_nothing(formula: str, found: float | None) -> None:
    assert again(formula, {"E1": {"value": 2.0}, "E2": {"value": 3.0}}) == pytest.approx(found)


def written(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def checked(bundle: Path) -> dict[str, Any]:
    """What the bundle's own script says, run by itself: without finllm, its home or its settings."""
    done = subprocess.run([sys.executable, "-I", str(bundle / "verify.py"), "--json"], capture_output=True, text=True,
                          check=False, env={"PATH": ""})  # fmt: skip
    return json.loads(done.stdout)

"""`finllm explain` and `finllm run --explain`: beside the result, never in its way."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from finllm.desk import desk as desk_module
from finllm.desk.desk import assemble
from finllm.events import EventBus
from finllm.graphs.flow import run_stress_test
from finllm.guardrails.audit import open_recorder
from finllm.review import explain as explain_module
from finllm.settings import Settings
from finllm.testing import ScriptedBackend
from tests.desks import request_for
from tests.graphs.test_flow import READS_WELL
from tests.warm import Warm

from .conftest import Cli
from .test_replay import EARLY


def scripted() -> ScriptedBackend:
    return ScriptedBackend([READS_WELL], name="edge")


@pytest.fixture(scope="module")
def kept(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a run that ended and one that only began."""
    settings = Settings(home=warm.home(tmp_path_factory.mktemp("kept")))
    with closing(open_recorder(settings)) as ledger:
        desk = assemble(settings, EventBus(), ledger, [scripted()])
        request = request_for("hormuz-blockade", sources=(), as_of=EARLY)
        asyncio.run(run_stress_test("ended", request, desk))
        ledger.start_run("begun", request.model_dump(mode="json"))
    return settings.home


@pytest.fixture
def told(cli: Cli, kept: Path, warm: Warm, monkeypatch: pytest.MonkeyPatch) -> Cli:
    warm.open_here(monkeypatch)
    monkeypatch.setenv("FINLLM_HOME", str(kept))
    monkeypatch.setattr(desk_module, "open_backends", lambda *_: [scripted()])
    return cli


@pytest.fixture
def story(tmp_path: Path) -> Path:
    """A scenario without sources, on an early day."""
    path = tmp_path / "story.yaml"
    path.write_text(
        f"title: Oil is short\nnarrative: Tankers stay in port and oil soars.\nas_of: {EARLY}\nhorizon: 20\n"
        "approved_by: the risk committee\nsources: []\nshocks: [{factor: OIL_WTI, move: '+40%'}]\n",
        encoding="utf-8",
    )
    return path


def test_an_explanation_is_told_in_every_form_and_in_what_the_run_leaves(told: Cli, tmp_path: Path) -> None:
    text = told("explain", "ended")
    assert text.code == 0
    assert "What drove the result" in text.out
    assert "Whether the citations are faithful" in text.out
    assert told("explain", "ended", "--format", "html").out.startswith("<!doctype html>")
    assert told("explain", "ended", "--format", "md").out.startswith("# ")
    found = told("explain", "ended", "--json").json
    assert (found["run_id"], found["complete"]) == ("ended", True)
    assert found["tested"]["measured citations"]["odds"]["level"] == 0.95
    assert "What drove the result" in told("trace", "ended").out
    assert told("replay", "ended").code == 0
    assert told("resume", "ended", "--out", tmp_path / "out").code == 0
    assert "What drove the result" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_a_bound_is_kept_and_said(told: Cli) -> None:
    cut = told("explain", "ended", "--seconds", "30", "--calls", "0")
    assert cut.code == 0
    assert "«30 s and 0 calls»" in cut.out


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("nobody",), "finllm runs list"),
        (("begun",), "finllm resume begun"),
        (("ended", "--json", "--format", "md"), "give one of them"),
        (("ended", "--calls", "-1"), "--calls"),
    ],
)
def test_bad_input_exits_with_2_and_says_what_mends_it(arguments: tuple[str, ...], names: str, told: Cli) -> None:
    said = told("explain", *arguments)
    assert said.code == 2
    assert names in said.err + said.out


def test_a_run_is_explained_once_its_report_is_out(told: Cli, story: Path, tmp_path: Path) -> None:
    said = told("run", story, "--explain", "--json", "--out", tmp_path / "out")
    assert said.code == 0
    assert "there is no explanation" not in said.err, said.err
    kept = json.loads((tmp_path / "out" / "explanation.json").read_text(encoding="utf-8"))
    assert kept["run_id"] == said.json["run_id"]
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8")) == said.json
    for name in ("report.md", "report.html"):
        assert "What drove the result" in (tmp_path / "out" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("failure", [RuntimeError("no memory"), KeyboardInterrupt()])
def test_an_explanation_that_fails_leaves_the_result_and_its_exit_code(
    failure: BaseException, told: Cli, story: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise failure

    monkeypatch.setattr(explain_module, "explain", fail)
    said = told("run", story, "--explain", "--json", "--out", tmp_path / "out")
    assert said.code == 0
    assert said.json["status"] == "finished"
    assert "the result stands" in said.err
    assert f"finllm explain {said.json['run_id']}" in said.err
    assert (tmp_path / "out" / "report.json").exists()
    assert not (tmp_path / "out" / "explanation.json").exists()

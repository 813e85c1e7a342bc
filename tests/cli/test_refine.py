"""`finllm refine` and `finllm run --refine`: a report is verified once it is out, and never in its way."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from finllm.desk import desk as desk_module
from finllm.desk.desk import assemble
from finllm.events import EventBus
from finllm.graphs.flow import run_stress_test
from finllm.guardrails.audit import open_recorder
from finllm.sessions import refine as refining
from finllm.settings import Settings
from finllm.testing import ScriptedBackend
from tests.desks import request_for
from tests.graphs.test_flow import READS_WELL
from tests.sessions.test_refine import SEES_A_CRISIS
from tests.warm import Warm

from .conftest import Cli
from .test_replay import EARLY


def backends() -> list[ScriptedBackend]:
    return [ScriptedBackend([READS_WELL], name="edge"),
            ScriptedBackend([READS_WELL, SEES_A_CRISIS], name="deep", tier="deep", precision="F16")]  # fmt: skip


@pytest.fixture(scope="module")
def kept(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a run that ended and one that only began."""
    settings = Settings(home=warm.home(tmp_path_factory.mktemp("kept")))
    with closing(open_recorder(settings)) as ledger:
        desk = assemble(settings, EventBus(), ledger, backends())
        request = request_for("hormuz-blockade", sources=(), as_of=EARLY)
        asyncio.run(run_stress_test("ended", request, desk))
        ledger.start_run("begun", request.model_dump(mode="json"))
    return settings.home


@pytest.fixture
def told(cli: Cli, kept: Path, warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The commands in a copy of that home."""
    warm.open_here(monkeypatch)
    monkeypatch.setenv("FINLLM_HOME", str(shutil.copytree(kept, tmp_path / "own", symlinks=True)))
    monkeypatch.setattr(desk_module, "open_backends", lambda *_: backends())
    return cli


def test_a_run_is_verified_and_what_that_changed_is_told(told: Cli) -> None:
    said = told("refine", "ended")
    assert said.code == 0
    assert "Version 2 of ended is " in said.out
    assert "market-signal, regime: calm → crisis" in said.out
    assert "What that changed in the result:" in said.out
    assert "Version 2 of it is " in told("trace", "ended").out
    assert told("replay", "ended").code == 0


def test_a_verification_as_json_says_which_run_is_the_newest(told: Cli) -> None:
    found = told("refine", "ended", "--json").json
    assert (found["outcome"], found["version"], found["newest"]) == ("committed", 1, found["draft"])


@pytest.mark.parametrize(("run_id", "names"), [("nobody", "finllm runs list"), ("begun", "finllm resume begun")])
def test_bad_input_exits_with_2_and_says_what_mends_it(run_id: str, names: str, told: Cli) -> None:
    said = told("refine", run_id)
    assert said.code == 2
    assert names in said.err + said.out


def test_a_run_is_verified_once_its_report_is_out(told: Cli, tmp_path: Path) -> None:
    path = tmp_path / "story.yaml"
    path.write_text(
        f"title: Oil is short\nnarrative: Tankers stay in port and oil soars.\nas_of: {EARLY}\nhorizon: 20\n"
        "approved_by: the risk committee\nsources: []\nshocks: [{factor: OIL_WTI, move: '+40%'}]\n",
        encoding="utf-8",
    )
    said = told("run", path, "--refine")
    assert said.code == 0
    assert said.out.index("Oil is short") < said.out.index("Version 2 of ")


def test_a_verification_that_fails_leaves_the_result_and_its_exit_code(
    told: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(refining, "refine_run", fail)
    said = told("run", "hormuz-blockade", "--refine", "--json", "--as-of", EARLY)
    assert said.code == 0
    assert said.json["status"] == "finished"
    assert f"the result stands; try: finllm refine {said.json['run_id']}" in said.err

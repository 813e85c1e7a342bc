"""`finllm replay`, `diff` and the forms of `trace`, on runs that scripted agents judged."""

from __future__ import annotations

import asyncio
import datetime as dt
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finllm.desk.desk import assemble
from finllm.events import EventBus
from finllm.graphs.flow import run_stress_test
from finllm.guardrails.audit import open_recorder
from finllm.scheduler.broker import Broker
from finllm.settings import Settings
from finllm.testing import ScriptedBackend
from tests.desks import request_for
from tests.graphs.test_flow import READS_BADLY, READS_WELL
from tests.warm import Warm

from .conftest import Cli

EARLY = dt.date(1991, 6, 28)
"""A day with little history before it, so that its forecasts are calibrated at once."""


def saying(script: dict[str, Any], field: str, value: str) -> dict[str, Any]:
    """The script, with one field of the event said so."""
    return {**script, "say": {**script["say"], field: value}}


@pytest.fixture(scope="module")
def kept(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two runs that read the same story differently, and with two more in which no channels are read, so
    that the language model alone says what happened."""
    settings = Settings(home=warm.home(tmp_path_factory.mktemp("kept")))
    with closing(open_recorder(settings)) as ledger:
        desk = assemble(settings, EventBus(), ledger, [])
        for name, script, channels in (
            ("first", saying(READS_WELL, "horizon", "weeks"), desk.channels),
            ("second", saying(READS_BADLY, "horizon", "days"), desk.channels),
            ("first-alone", READS_WELL, None),
            ("second-alone", READS_BADLY, None),
        ):
            backend = ScriptedBackend([script], name="edge", weights=name)
            own = replace(desk, broker=Broker([backend], ledger, desk.bus, call_timeout=60), channels=channels)
            asyncio.run(run_stress_test(name, request_for("hormuz-blockade", sources=(), as_of=EARLY), own))
    return settings.home


@pytest.fixture
def told(cli: Cli, kept: Path, warm: Warm, monkeypatch: pytest.MonkeyPatch) -> Cli:
    warm.open_here(monkeypatch)
    monkeypatch.setenv("FINLLM_HOME", str(kept))
    return cli


def test_a_replay_says_what_it_rebuilt_and_prints_the_state_as_json(told: Cli) -> None:
    text = told("replay", "first")
    assert text.code == 0
    assert "the state after report is rebuilt, byte for byte" in text.out
    state = told("replay", "first", "--at", "intake", "--json").json
    assert (state["at"], state["matches_record"], state["regenerated"]) == ("intake", True, None)
    assert state["sha256"] == state["hashes"][-1]["sha256"]
    assert state["state"]["book"]["holdings"]


def test_a_diff_tells_the_judgements_and_the_figures_that_changed(told: Cli) -> None:
    alone = told("diff", "first-alone", "second-alone", "--json").json
    assert alone["inputs"] == []
    assert {one["what"] for one in alone["judgements"]} >= {"narrative, narrative #1 event"}
    assert alone["result"]
    found = told("diff", "first", "second", "--json").json
    assert found["inputs"] == []
    assert {one["what"] for one in found["judgements"]} >= {"narrative, narrative #1 horizon"}
    assert "weights_sha256: first → second" in told("diff", "first", "second").out
    assert told("replay", "first-alone").code == 0  # no reader stands in for the one that it had not


def test_a_trace_is_told_in_every_form(told: Cli) -> None:
    assert told("trace", "first", "--format", "html").out.startswith("<!doctype html>")
    assert told("trace", "first", "--format", "md").out.startswith("# ")
    assert told("trace", "first", "--format", "json").json == told("trace", "first", "--json").json
    assert told("trace", "first", "--format", "html", "--json").code == 2


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("replay", "nobody"), "finllm runs list"),
        (("replay", "first", "--at", "nowhere"), "use one of intake"),
        (("diff", "first", "nobody"), "finllm runs list"),
        (("trace", "first", "--format", "pdf"), "--format"),
    ],
)
def test_bad_input_exits_with_2_and_says_what_mends_it(arguments: tuple[str, ...], names: str, told: Cli) -> None:
    said = told(*arguments)
    assert said.code == 2
    assert names in said.err


def test_a_changed_weight_is_refused_with_its_name_as_json(told: Cli, kept: Path) -> None:
    from finllm.graphs import basis as standing

    said = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standing, "prompt_digests", lambda folder: {"system.md.j2": f"{folder}"})
        said = told("replay", "first", "--json")
    assert said.code == 1
    assert said.json["error"]["kind"] == "replay_refused"
    assert "prompt" in said.json["error"]["message"]

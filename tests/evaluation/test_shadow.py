"""Deploying: copies of calls answered by a new version, promoted in one step beside a run, and taken back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from finllm.agents.narrative import NARRATIVE
from finllm.desk.desk import open_desk
from finllm.errors import InputError
from finllm.evaluation.shadow import (
    DEPLOY,
    SHADOW,
    Compared,
    Shadow,
    compared,
    promote,
    rollback,
    stage,
    status,
)
from finllm.events import CallStarted, Event, EventBus
from finllm.graphs.flow import Outcome
from finllm.guardrails.audit.recorder import open_recorder
from finllm.memory.ledger import Ledger
from finllm.models.served import Served, change_served, read_served, version_of
from finllm.scheduler.asking import content_of
from finllm.scheduler.backends import Request
from finllm.scheduler.decoding.template import compile_template
from finllm.scheduler.placement.task import Prompt, Task, key_of
from finllm.scheduler.record import CALL, Entry
from finllm.settings import load_settings, served_path
from finllm.testing import ScriptedBackend
from tests.conftest import bounded
from tests.desks import request_for, run
from tests.warm import Warm

DOVISH = [{"when": "", "say": {"stance": "dovish"}}]


def test_a_promoted_version_stands_above_the_config_file_and_below_a_variable(tmp_path: Path) -> None:
    env = {"FINLLM_HOME": str(tmp_path)}
    (tmp_path / "config.toml").write_text('adapter = "auto"\n')
    (tmp_path / "config.toml").chmod(0o600)
    settings = load_settings(env).settings
    version = version_of("none", settings)
    change_served(settings, lambda served: served.model_copy(update={"served": version}))
    loaded = load_settings(env)
    assert (loaded.settings.adapter, loaded.origins["adapter"]) == ("none", str(served_path(tmp_path)))
    assert load_settings({**env, "FINLLM_ADAPTER": "auto"}).settings.adapter == "auto"
    served_path(tmp_path).write_text("{broken")
    with pytest.raises(InputError, match=r"served\.json"):
        load_settings(env)


ONE_COPY = Compared(copies=1, failed=0, fields=1, agreed=1, low=0.2, high=1.0, figures=())


def test_steps_out_of_order_and_versions_that_are_not_there_are_refused(tmp_path: Path) -> None:
    settings = load_settings({"FINLLM_HOME": str(tmp_path)}).settings
    ledger = Ledger(settings.ledger_path)
    with pytest.raises(InputError, match="no candidate"):
        promote(settings, ledger)
    with pytest.raises(InputError, match="nothing was promoted"):
        rollback(settings, ledger)
    with pytest.raises(InputError, match="registered as 'not-there'"):
        version_of("not-there", settings)
    with pytest.raises(InputError, match="is what is served"):
        stage(settings, version_of("auto", settings), compared([], 0), ledger)
    with pytest.raises(InputError, match="has answered no copy"):
        stage(settings, version_of("none", settings), compared([], 3), ledger)
    changed = version_of("none", settings).model_copy(update={"sha256": "0" * 64})
    change_served(settings, lambda served: served.model_copy(update={"candidate": changed}))
    with pytest.raises(InputError, match="have changed since"):
        promote(settings, ledger)
    assert read_served(settings) == Served(candidate=changed)
    assert not ledger.uses("deploy", DEPLOY), "a step that is refused is no step"
    ledger.close()


def test_copies_are_a_share_of_the_calls_each_answered_once_and_compared(tmp_path: Path) -> None:
    ledger, old, new = Ledger(tmp_path / "ledger.sqlite"), ScriptedBackend([{}]), ScriptedBackend(DOVISH, name="new")
    template = compile_template(NARRATIVE.judgement, {"because": "AB"}, count=2)
    with ledger.start_run("one", {"scenario": {"title": "One"}}):
        for number in range(20):
            task = Task(
                "narrative", "narrative", Prompt("s", f"text {number}"), "v", template, "Q4_0", 9.0, 0, priors={}
            )
            content = content_of(task, old.offer)
            said = bounded(old.generate(Request(task.prompt, task.template, task.priors, task.seed)))
            spent = {"seconds": 0.01, "tokens": 1, "deep_tokens": 0, "usd": None, "grams": None,
                     "joules": {"value": 1.0, "provenance": "modelled", "basis": ""}}  # fmt: skip
            response = {"text": said.text, "choices": said.choices, "prompt_tokens": 1, "output_tokens": 1,
                        "seconds": 0.01, "spent": spent}  # fmt: skip
            request = {**content, "agent": "narrative", "prompt_version": "v", "offer": asdict(old.offer)}
            ledger.record(Entry(key_of("call", content), CALL, "scripted", request, response), run_id="one", node="n")
        ledger.end_run("one", "finished", {"title": "One"})
    whole = bounded(Shadow(ledger, new, None, 1.0).copies(100))
    assert (whole.copies, whole.failed, len(new.requests)) == (20, 0, 20)
    assert whole.fields - whole.agreed == 20, "the stance of each, and nothing else"
    assert whole.low < whole.agreed / whole.fields < whole.high
    assert all(one.background for one in new.requests)
    part = bounded(Shadow(ledger, new, None, 0.3).copies(100))
    assert 0 < part.copies < 20
    assert len(new.requests) == 20, "what is on record is not asked again"
    assert bounded(Shadow(ledger, new, None, 1.0).copies(5)).copies == 5
    assert bounded(Shadow(ledger, old, None, 1.0).copies(100)).copies == 0, "not by the weights that answered"
    down = bounded(Shadow(ledger, ScriptedBackend([{"fail": "down"}], name="down"), None, 1.0).copies(3))
    assert (down.copies, down.failed, down.low, down.high) == (0, 3, 0.0, 1.0)
    assert len(ledger.uses("one", SHADOW)) >= 23
    ledger.close()


def test_a_promotion_while_a_run_is_under_way_drops_no_call_mixes_none_and_is_taken_back_in_one_step(
    warm: Warm, tmp_path: Path
) -> None:
    env = {"FINLLM_HOME": str(warm.home(tmp_path / "home")), "FINLLM_THREADS": "1"}
    settings, done = load_settings(env).settings, list[str]()
    before, after = version_of("auto", settings), version_of("none", settings)

    def promoting(event: Event) -> None:
        if isinstance(event, CallStarted) and not done:
            done.append(event.key)
            ledger = open_recorder(settings)
            stage(settings, after, ONE_COPY, ledger)
            promote(settings, ledger)
            ledger.close()

    with open_desk(settings, EventBus(promoting)) as desk:
        old = {offer.weights_sha256 for offer in desk.broker.offers}
        outcome: Outcome = run(request_for("hormuz-blockade", sources=()), desk, "under-way")
        calls = desk.ledger.uses("under-way", CALL)
    assert done
    assert outcome.report is not None
    assert {one.entry.request["weights_sha256"] for one in calls} <= old
    assert not [one for one in outcome.report.agents if one.status == "abstained" and one.backend]
    promoted = load_settings(env).settings
    assert promoted.adapter == "none"
    with open_desk(promoted, EventBus()) as desk:
        assert not {offer.weights_sha256 for offer in desk.broker.offers} & old
        rollback(promoted, desk.ledger)
        steps = [use.entry.request["step"] for use in desk.ledger.uses("deploy", DEPLOY)]
    assert steps == ["shadow", "promote", "rollback"]
    back = load_settings(env).settings
    assert (back.adapter, status(back)["served"]) == ("auto", before.model_dump(mode="json"))
    with open_desk(back, EventBus()) as desk:
        assert {offer.weights_sha256 for offer in desk.broker.offers} == old

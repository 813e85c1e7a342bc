"""A server of other weights beside the shipped adapter: the card reads its own weights, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import pytest

from finllm.agents.agent import Caller, Offered, Opinion, judge, prompt_version
from finllm.agents.priors import prior_of
from finllm.agents.sanity_checker import SANITY_CHECKER
from finllm.desk.desk import usable_card
from finllm.events import Event, EventBus, Noted
from finllm.graphs.basis import Standing, Weights
from finllm.memory.entries import RecordedCall
from finllm.models.cards import AdapterCard, FieldCalibration
from finllm.review.odds import calibrated
from finllm.scheduler.backends.offer import uncarded
from finllm.scheduler.broker import Broker
from finllm.scheduler.money.account import Account
from finllm.scheduler.money.budget import Budget
from finllm.scheduler.placement.task import Prompt
from finllm.testing import MemoryRecorder, ScriptedBackend
from tests.conftest import bounded

VERDICTS = ("credible", "doubtful", "contradicted", "coordinated", "injected")
BIAS = FieldCalibration(temperature=2.0, bias=dict.fromkeys(VERDICTS, 0.0) | {"doubtful": -0.5})
CARD = AdapterCard(name="analyst", base_sha256="", adapter_sha256="",
                   prompts={SANITY_CHECKER.role: prompt_version(SANITY_CHECKER)},
                   calibration={f"{SANITY_CHECKER.role}.verdict": BIAS})  # fmt: skip
DOUBTFUL: list[Mapping[str, object]] = [{"say": {"verdict": "doubtful"}}]


def pool(**foreign: str) -> tuple[ScriptedBackend, ScriptedBackend]:
    """Our own weights at the edge, and a server behind the deep tier."""
    return (ScriptedBackend(DOUBTFUL, name="ours", carded=True),
            ScriptedBackend(DOUBTFUL, name="theirs", tier="deep", precision="F16", **foreign))  # fmt: skip


def ask(backends: tuple[ScriptedBackend, ...], floor: str | None, card: AdapterCard | None = CARD) -> Opinion:
    bus = EventBus()
    broker = Broker(backends, MemoryRecorder(), bus, call_timeout=10)
    caller = Caller(broker, Account(Budget(), clock=lambda: 0.0), bus, "run", "node", 0, 10, card)
    lines = {"because": [Offered("E4", "Reuters: oil jumps."), Offered("E9", "AP: traffic halts.")]}
    return bounded(judge(SANITY_CHECKER, {"text": "Hormuz is closed."}, lines, caller, floor=floor))


def test_each_backend_s_answer_is_read_by_the_card_of_its_weights() -> None:
    ours, theirs = pool()
    mine, other = ask((ours, theirs), None), ask((ours, theirs), "F16")
    assert (mine.backend, other.backend) == ("ours", "theirs")
    alone = ask((ScriptedBackend(DOUBTFUL, name="ours", carded=True),), None)
    assert mine.choices["verdict"] == alone.choices["verdict"]
    assert ours.requests[-1].priors is not None
    assert ours.requests[-1].priors["verdict"] == prior_of(BIAS)
    without = ask((pool()[1],), "F16", card=None)
    assert other.choices["verdict"] == without.choices["verdict"]
    assert other.choices["verdict"] != mine.choices["verdict"]
    neutral, asked = theirs.requests[-2:]
    assert neutral.priors is None  # what it says to nothing is asked of itself, of every field
    assert asked.priors is not None
    assert set(asked.priors) == {"verdict", "because"}


def test_a_server_with_the_same_weights_is_read_by_the_card() -> None:
    backends = pool(weights="sha256-of-ours")
    assert ask(backends, "F16").choices["verdict"] == ask(backends, None).choices["verdict"]
    assert not uncarded(one.offer for one in backends)


def test_the_card_is_kept_beside_foreign_weights_and_dropped_where_it_is_of_none() -> None:
    seen: list[Event] = []
    ours, theirs = (one.offer for one in pool())
    assert usable_card(CARD, [ours, theirs], EventBus(seen.append)) is CARD
    assert usable_card(CARD, [theirs], EventBus(seen.append)) is None
    said = [one.message for one in seen if isinstance(one, Noted)]
    assert "'analyst' is not used for answers of theirs" in said[0]
    assert "none of the backends" in said[1]


@pytest.mark.parametrize(("weights", "read"), [("sha256-of-ours", True), ("sha256-of-theirs", False)])
def test_a_recorded_call_is_read_as_its_run_read_it(weights: str, read: bool) -> None:
    call = RecordedCall(
        key="k", agent=SANITY_CHECKER.role, prompt=Prompt("", ""), prompt_version=prompt_version(SANITY_CHECKER),
        template=[], priors={}, seed=0, weights_sha256=weights, precision="Q4_0", text="",
        choices={"verdict": {"credible": 0.9, "doubtful": 0.1}}, prompt_tokens=1, output_tokens=1, seconds=0.1,
    )  # fmt: skip
    begun = Standing(version="1", request="", files={}, prompts={}, data={}, precision="F16", card=CARD,
                     weights=tuple(Weights(offer=asdict(one.offer), path=None) for one in pool()))  # fmt: skip
    assert calibrated(call, begun)["verdict"]["credible"] == pytest.approx(0.75 if read else 0.9)
    old = begun.model_copy(update={"weights": tuple(one.model_copy(update={"offer": {
        name: value for name, value in one.offer.items() if name != "carded"}}) for one in begun.weights)})  # fmt: skip
    assert calibrated(call, old)["verdict"]["credible"] == pytest.approx(0.75)

"""Answers of a model are kept: asked for once of the same weights, in whole lines only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from finllm.errors import BackendError
from finllm.scheduler.backends import Request
from finllm.scheduler.decoding.template import Choose
from finllm.scheduler.placement.task import Prompt
from finllm.testing import ScriptedBackend
from tests.conftest import bounded
from training.kept import Kept

TEMPLATE = (Choose("oil", ("up", "down")),)


def request(user: str = "Oil rose.", priors: Mapping[str, Mapping[str, float]] | None = None) -> Request:
    return Request(Prompt("You are a risk analyst.", user), TEMPLATE, priors, seed=0)


def scripted(weights: str = "w") -> ScriptedBackend:
    return ScriptedBackend([{"when": "fails", "fail": "no memory"}, {"say": {"oil": "up"}}], weights=weights)


def test_what_was_asked_before_is_not_asked_again(tmp_path: Path) -> None:
    first = bounded(Kept(scripted(), tmp_path).generate(request()))
    model = scripted()
    again = Kept(model, tmp_path)
    assert bounded(again.generate(request())) == first
    assert model.requests == []
    bounded(again.generate(request(priors={"oil": {"up": 0.5, "down": 1.0}})))
    bounded(again.generate(request("Oil fell.")))
    assert len(model.requests) == 2
    assert again.offer == model.offer


def test_other_weights_are_asked_themselves(tmp_path: Path) -> None:
    bounded(Kept(scripted(), tmp_path).generate(request()))
    other = scripted("other weights")
    bounded(Kept(other, tmp_path).generate(request()))
    assert len(other.requests) == 1


def test_a_failed_call_and_half_a_line_are_asked_again(tmp_path: Path) -> None:
    kept = Kept(scripted(), tmp_path)
    with pytest.raises(BackendError, match="no memory"):
        bounded(kept.generate(request("This fails.")))
    bounded(kept.generate(request()))
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text(encoding="utf-8")[:-9], encoding="utf-8")
    model = scripted()
    bounded(Kept(model, tmp_path).generate(request()))
    assert len(model.requests) == 1
    bounded(Kept(scripted(), tmp_path).generate(request()))
    assert len(model.requests) == 1

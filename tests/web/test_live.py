"""Live pages are told of every change, also of one whose record comes late."""

from __future__ import annotations

import re
import time

import pytest

from finllm.web.live import HEARTBEAT
from tests.web.conftest import Served


def test_a_change_is_heard_though_its_record_comes_late(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger's row is seen before its record: the change is told of once it is believed, not at a heartbeat."""
    reader, reviews, ledger = served.signed_in("rev2"), served.serving.reviews, served.serving.ledger
    reviewer = reviews.users.find("rev1")
    state = re.search(r'data-state="([0-9a-f]+)"', reader.get("/queue").text)
    assert reviewer is not None
    assert state is not None
    audit = ledger._audit  # type: ignore[attr-defined]

    def late(use: int) -> None:
        time.sleep(1.5)
        audit(use)

    monkeypatch.setattr(ledger, "_audit", late)
    with reader.stream("GET", f"/live/queue?state={state[1]}") as live:
        heard = live.iter_raw()
        assert next(heard) == b"retry: 2000\n\n"
        reviews.claim(served.made.item, reviewer)
        done = time.monotonic()
        assert b"event: changed" in next(heard)
        assert time.monotonic() - done < HEARTBEAT / 2

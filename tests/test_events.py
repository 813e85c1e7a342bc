"""Events: every renderer sees them in order, and one that breaks stops neither the run nor the others."""

from __future__ import annotations

import json
import threading

import pytest
from pydantic import ValidationError

from finllm.events import Event, EventBus, NodeFinished, NodeStarted, Noted, Progress


def kinds(events: list[Event]) -> list[str]:
    return [json.loads(event.model_dump_json())["kind"] for event in events]


def test_all_renderers_see_all_events_in_order() -> None:
    left: list[Event] = []
    right: list[Event] = []
    bus = EventBus(left.append)
    bus.emit(NodeStarted(node="intake"))
    bus.subscribe(right.append)
    bus.emit(NodeFinished(node="intake", seconds=0.5))
    assert kinds(left) == ["node_started", "node_finished"]
    assert kinds(right) == ["node_finished"]


def test_who_unsubscribes_sees_no_more_and_may_do_so_twice() -> None:
    seen: list[Event] = []
    bus = EventBus()
    leave = bus.subscribe(seen.append)
    bus.emit(NodeStarted(node="a"))
    leave()
    leave()
    bus.emit(NodeStarted(node="b"))
    assert kinds(seen) == ["node_started"]


def test_a_renderer_that_breaks_is_dropped_and_the_others_are_told() -> None:
    seen: list[Event] = []
    calls: list[Event] = []

    def broken(event: Event) -> None:
        calls.append(event)
        raise OSError("broken pipe")

    bus = EventBus(broken, seen.append)
    bus.emit(NodeStarted(node="a"))
    bus.emit(NodeStarted(node="b"))
    assert len(calls) == 1
    assert sorted(kinds(seen)) == ["node_started", "node_started", "noted"]
    told = next(event for event in seen if isinstance(event, Noted))
    assert told.level == "warning"
    assert "broken pipe" in told.message


def test_renderers_that_all_break_stop_nothing() -> None:
    def broken(event: Event) -> None:
        raise OSError(str(event))

    def also_broken(event: Event) -> None:
        raise ValueError(str(event))

    bus = EventBus(broken, also_broken)
    bus.emit(NodeStarted(node="a"))
    bus.emit(NodeStarted(node="b"))


def test_a_renderer_that_leaves_and_then_breaks_stops_nothing() -> None:
    bus = EventBus()

    def leaving(event: Event) -> None:
        leave()
        raise OSError(str(event))

    leave = bus.subscribe(leaving)
    bus.emit(NodeStarted(node="a"))


def test_a_renderer_that_emits_and_breaks_stops_nothing() -> None:
    bus = EventBus()

    def chatty(event: Event) -> None:
        if isinstance(event, NodeStarted):
            bus.emit(Progress(what="x", done=1, total=2))
        raise OSError("broken")

    bus.subscribe(chatty)
    bus.emit(NodeStarted(node="a"))


def test_threads_may_emit_into_a_breaking_renderer_at_once() -> None:
    barrier = threading.Barrier(8)
    failures: list[BaseException] = []

    def broken(event: Event) -> None:
        barrier.wait(10)
        raise OSError(str(event))

    bus = EventBus(broken)

    def emit() -> None:
        try:
            bus.emit(NodeStarted(node="a"))
        except BaseException as error:  # noqa: BLE001  a thread's failure is the test's
            failures.append(error)

    threads = [threading.Thread(target=emit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failures == []


def test_an_event_cannot_be_changed_by_who_sees_it() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        NodeStarted(node="a").node = "b"

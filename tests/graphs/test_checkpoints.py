"""The checkpointer: LangGraph's own conformance suite passes on it, and a poisoned checkpoint is refused."""

from __future__ import annotations

import os
import pickle
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import ormsgpack
import pytest
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from finllm.desk.desk import Desk
from finllm.errors import RecordError
from finllm.graphs.checkpoints import PlainSerializer, checkpointer
from tests.conftest import bounded
from tests.desks import Seen, go_on, request_for, run
from tests.graphs.test_flow import READS_BADLY

MakeDesk = Callable[..., Desk]


def test_the_saver_passes_langgraph_s_conformance_suite(tmp_path: Path) -> None:
    @checkpointer_test(name="finllm")
    async def saver() -> AsyncGenerator[AsyncSqliteSaver, None]:
        async with checkpointer(tmp_path / f"{os.urandom(4).hex()}.sqlite") as found:
            await found.setup()
            yield found

    report = bounded(validate(saver))
    assert report.passed_all_base(), [result.failures for result in report.results.values()]
    assert sum(result.tests_passed for result in report.results.values()) > 50


class Bomb:
    """Makes a file when it is built."""

    def __init__(self, path: str) -> None:
        Path(path).touch()


class Fuse:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mknod, (str(self._path),)


def poisons(path: Path) -> dict[str, tuple[str, bytes]]:
    """What an attacker might put into the checkpoint file, by name."""
    named = ormsgpack.packb(["tests.graphs.test_checkpoints", "Bomb", str(path)])
    hidden = ormsgpack.packb({"deep": [ormsgpack.Ext(0, named)]})
    call = ormsgpack.packb(["os", "system", f"touch {path}", "__call__"])
    return {
        "pickle": ("pickle", pickle.dumps(Fuse(path))),
        "json": ("json", b'{"lc": 2, "type": "constructor", "id": ["pathlib", "Path"], "args": ["/"]}'),
        "constructor": ("msgpack", ormsgpack.packb(ormsgpack.Ext(0, named))),
        "constructor inside": ("msgpack", ormsgpack.packb(ormsgpack.Ext(7, hidden))),
        "method": ("msgpack", ormsgpack.packb([ormsgpack.Ext(3, call)])),
        "unknown extension": ("msgpack", ormsgpack.packb(ormsgpack.Ext(99, b"\x00"))),
        "torn": ("msgpack", ormsgpack.packb({"a": [1] * 9})[:-3]),
    }


@pytest.mark.parametrize("name", poisons(Path("x")))
def test_nothing_in_a_poisoned_checkpoint_is_built(name: str, tmp_path: Path) -> None:
    boom = tmp_path / "boom"
    with pytest.raises(RecordError, match="a checkpoint is refused"):
        PlainSerializer().loads_typed(poisons(boom)[name])
    assert not boom.exists()


def test_a_run_is_not_resumed_from_a_poisoned_checkpoint(scripted_desk: MakeDesk, tmp_path: Path) -> None:
    desk = scripted_desk([READS_BADLY], [READS_BADLY])
    request = request_for("hormuz-blockade").model_copy(update={"on_unresolved": "ask"})
    assert run(request, desk).status == "waiting"
    boom = tmp_path / "boom"
    for kind, content in poisons(boom).values():
        with closing(sqlite3.connect(desk.settings.checkpoints_path)) as db, db:
            db.execute("UPDATE checkpoints SET type = ?, checkpoint = ?", (kind, content))
        with pytest.raises(RecordError, match="a checkpoint is refused"):
            go_on(desk, answer="accept")
    assert not boom.exists()
    row = desk.ledger.run("run-1")
    assert row is not None
    assert row.result is None


def edit(path: Path, run_id: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what the newest checkpoint of a run holds, as somebody with write access to the file could."""
    serializer = PlainSerializer()
    with closing(sqlite3.connect(path)) as db, db:
        query = (
            "SELECT checkpoint_id, type, checkpoint FROM checkpoints WHERE thread_id = ? "
            "ORDER BY checkpoint_id DESC LIMIT 1"
        )
        id, kind, content = db.execute(query, (run_id,)).fetchone()
        held = serializer.loads_typed((kind, content))
        change(held["channel_values"])
        kind, content = serializer.dumps_typed(held)
        db.execute("UPDATE checkpoints SET type = ?, checkpoint = ? WHERE checkpoint_id = ?", (kind, content, id))


def opposite(channels: dict[str, Any]) -> None:
    for opinion in channels["opinions"]:
        for call in opinion.get("judgement", {}).get("factors", {}).values():
            call["direction"] = {"up": "down", "down": "up"}.get(call["direction"], call["direction"])


def poorer(channels: dict[str, Any]) -> None:
    for holding in channels["book"]["holdings"]:
        holding["market_value"] *= 0.1


def settled(channels: dict[str, Any]) -> None:
    channels["verdict"] = "aligned"


@pytest.mark.parametrize("change", [opposite, poorer, settled])
def test_an_edited_checkpoint_changes_nothing_and_is_told(
    change: Callable[[dict[str, Any]], None], scripted_desk: MakeDesk, seen: Seen
) -> None:
    desk = scripted_desk([READS_BADLY], [READS_BADLY])
    request = request_for("hormuz-blockade").model_copy(update={"on_unresolved": "ask"})
    for name in ("run-1", "run-2"):
        assert run(request, desk, name).status == "waiting"
    honest = go_on(desk, "run-1", answer="accept")
    edit(desk.settings.checkpoints_path, "run-2", change)
    found = go_on(desk, "run-2", answer="accept")
    assert honest.report is not None
    assert found.report is not None
    assert found.report.model_dump(exclude={"run_id", "spent"}) == honest.report.model_dump(exclude={"run_id", "spent"})
    assert [event for event in seen.kinds("noted") if "is not what is on record" in event.message]

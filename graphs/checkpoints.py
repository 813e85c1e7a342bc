"""LangGraph's checkpoints as plain data: positions and interrupts; one that would build an object is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiosqlite
import ormsgpack
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.serde.jsonplus import EXT_DELTA_SNAPSHOT, JsonPlusSerializer
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from finllm.errors import RecordError
from finllm.files import exclusive

LONGEST_WAIT = 60.0
"""Seconds that a write waits for those of other runs."""
_KINDS = ("null", "bytes", "bytearray", "msgpack")
BUILT = frozenset((("langgraph.types", "Interrupt"), ("langgraph.types", "Send"), ("builtins", "set"),
                   ("builtins", "frozenset"), ("collections", "deque"), ("uuid", "UUID"),
                   ("datetime", "datetime")))  # fmt: skip
"""The only types that reading a checkpoint may build."""


class PlainSerializer(JsonPlusSerializer):
    """LangGraph's serializer, which leaves out what it does not know, made to refuse it instead.

    Pickle is neither written nor read. Errors: RecordError for a checkpoint that holds anything but data.
    """

    def __init__(self) -> None:
        super().__init__(pickle_fallback=False, allowed_msgpack_modules=[])

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        kind, content = data
        if kind not in _KINDS:
            raise _poisoned(f"it is {kind!r}, not plain data")
        if kind == "msgpack":
            _scan(content)
        return super().loads_typed(data)


def _scan(content: bytes) -> Mapping[object, object] | list[object] | str | bytes | float | None:
    try:
        return ormsgpack.unpackb(content, ext_hook=_refuse_unknown, option=ormsgpack.OPT_NON_STR_KEYS)
    except ormsgpack.MsgpackDecodeError as error:
        raise _poisoned(f"it cannot be read: {error}") from error


def _refuse_unknown(code: int, content: bytes) -> None:
    """Look into an extension without building it."""
    inside = _scan(content)
    if code == EXT_DELTA_SNAPSHOT:
        return
    module, name = inside[:2] if isinstance(inside, list) and len(inside) >= 2 else ("?", "?")
    if (module, name) not in BUILT:
        raise _poisoned(f"it would build {module}.{name}")


def _poisoned(why: str) -> RecordError:
    return RecordError(f"a checkpoint is refused: {why}; nothing of it was built",
                       fix="restore checkpoints.sqlite from a "
                       "copy, or remove it and run again: recorded calls are answered from the ledger")  # fmt: skip


def _nothing() -> None:
    pass


class FencedSaver(AsyncSqliteSaver):
    """A checkpointer that asks `check` before each write: a process that lost its run moves the position no further."""

    def __init__(self, connection: aiosqlite.Connection, check: Callable[[], None]) -> None:
        super().__init__(connection, serde=PlainSerializer())
        self._check = check

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        self._check()
        return await super().aput(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self._check()
        await super().aput_writes(config, writes, task_id, task_path)


@asynccontextmanager
async def checkpointer(path: Path, check: Callable[[], None] = _nothing) -> AsyncGenerator[AsyncSqliteSaver]:
    """The durable checkpointer: SQLite in WAL mode, every write synced. Several may be open on one file at once.

    `check` is asked before each write, and what it raises stops that.
    """
    lock = path.with_name(f".{path.name}.lock")  # SQLite does not wait where two switch to WAL at once
    with exclusive(lock), closing(sqlite3.connect(path, timeout=LONGEST_WAIT)) as database:
        database.execute("PRAGMA journal_mode=WAL")
    async with aiosqlite.connect(path, timeout=LONGEST_WAIT) as connection:
        await connection.execute("PRAGMA synchronous=FULL")
        yield FencedSaver(connection, check)

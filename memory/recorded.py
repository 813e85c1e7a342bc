"""A read-only ledger that answers with what one run used; a replay runs the graph over it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from finllm.errors import ReplayRefused
from finllm.memory.ledger import Ledger
from finllm.memory.reading import Use
from finllm.scheduler.record import FAILURE, Entry


class NotOnRecord(ReplayRefused):
    """The replay asked for something that the run did not."""


class RecordedLedger(Ledger):
    """The ledger, read as one run's record. Asking it to write raises NotOnRecord, naming what was new."""

    def __init__(self, path: Path, run_id: str) -> None:
        super().__init__(path, mode="read")
        self.run_id = run_id

    @cached_property
    def used_by_run(self) -> list[Use]:
        return self.uses(self.run_id)

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        return {use.key: use.entry for use in self.used_by_run}

    def lookup(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def used(self, key: str, *, run_id: str, node: str) -> None:
        """Nothing: a replay is no use of its own."""
        del key, run_id, node

    def record(self, entry: Entry, *, run_id: str, node: str) -> None:
        """Nothing for a failure, which is told again. Errors: NotOnRecord for anything else."""
        del run_id
        if entry.kind != FAILURE:
            raise NotOnRecord(
                f"node {node!r} asks for a {entry.kind} that run {self.run_id!r} has not on record",
                fix="the code or a setting has changed since, or the ledger was altered; start a new run and compare "
                "with 'finllm diff'",
            )

    def failure_of(self, about: Mapping[str, Any]) -> Entry | None:
        """The newest record that a task (as the broker names it: run, node, digest, number) found no answer."""
        return next((use.entry for use in reversed(self.used_by_run) if use.entry.kind == FAILURE
                     and {**about, **use.entry.request} == about), None)  # fmt: skip

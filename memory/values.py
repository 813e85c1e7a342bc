"""What answers turned out to be worth, kept in `values.json`: read at the start, replaced after a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finllm.errors import RecordError
from finllm.files import exclusive, write_atomically
from finllm.scheduler.placement.value import Learned, Seen

REMEMBERED = 4096
"""Runs whose ids are kept, the newest, so that none is counted twice."""


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid")

    agent: str
    kind: str | None
    count: int = Field(ge=1)
    mean: float = Field(allow_inf_nan=False)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: int = Field(default=1, ge=1, le=1)
    rows: list[_Row] = []
    runs: list[str] = []


class ValueFile:
    """The file of what was learned. Threads and processes may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def learned(self) -> Learned:
        """What was learned until now; nothing where there is no file. Errors: RecordError for one that is damaged."""
        return _learned(self._read())

    def value(self, agent: str, prior: float, kind: str | None = None) -> float:
        """See `Learned.value`. A file that is damaged counts as none: the next run's `count` says so."""
        try:
            return self.learned().value(agent, prior, kind)
        except RecordError:
            return Learned().value(agent, prior)

    def count(self, run_id: str, kind: str, narrowings: Mapping[str, float]) -> bool:
        """Take in what a run showed, by agent; False where it was counted before. Errors: RecordError."""
        name = hashlib.sha256(run_id.encode()).hexdigest()[:16]
        try:
            with exclusive(self._path.with_name(f".{self._path.name}.lock")):
                held = self._read()
                if name in held.runs:
                    return False
                learned = _learned(held)
                for agent, narrowing in narrowings.items():
                    learned = learned.observe(agent, kind, narrowing)
                runs = [*held.runs, name][-REMEMBERED:]
                write_atomically(self._path, _File(rows=_rows(learned), runs=runs).model_dump_json(indent=1) + "\n")
        except OSError as error:
            raise RecordError(
                f"cannot write the learned values {str(self._path)!r}: {error}",
                fix="free disk space or mend its permissions; runs go on with the values they have",
            ) from error
        return True

    def _read(self) -> _File:
        try:
            return _File.model_validate_json(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return _File()
        except (OSError, UnicodeDecodeError, ValidationError) as error:
            raise RecordError(
                f"cannot read the learned values {str(self._path)!r}: {error}",
                fix="remove the file: values are learned again",
            ) from error


def _learned(held: _File) -> Learned:
    return Learned(
        {row.agent: Seen(row.count, row.mean) for row in held.rows if row.kind is None},
        {(row.agent, row.kind): Seen(row.count, row.mean) for row in held.rows if row.kind is not None},
    )


def _rows(learned: Learned) -> list[_Row]:
    agents = [_Row(agent=one, kind=None, count=seen.count, mean=seen.mean) for one, seen in learned.agents.items()]
    return agents + [
        _Row(agent=agent, kind=kind, count=seen.count, mean=seen.mean)
        for (agent, kind), seen in learned.kinds.items()
    ]  # fmt: skip

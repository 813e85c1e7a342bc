"""A home with users and runs made by hand, for tests of reviews."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher

from finllm.guardrails.audit.recorder import AuditedRecorder, open_recorder
from finllm.memory.reviews import Policy, Reviews
from finllm.memory.secret_file import SecretFile
from finllm.memory.users import Role, User, Users
from finllm.settings import Settings

PHRASE = "seven quiet herons at noon"
LIGHT = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
"""argon2id as light as it can be: what it costs is argon2's to test."""
PEOPLE: dict[str, Role] = {
    "boss": "admin", "risk1": "risk", "rev1": "reviewer", "rev2": "reviewer", "rev3": "reviewer", "aud1": "auditor",
}  # fmt: skip


class Clock:
    """s since 1970, as a test sets it."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@dataclass
class Home:
    """A ledger under its audit log, with users."""

    ledger: AuditedRecorder
    users: Users
    reviews: Reviews
    secret: SecretFile
    clock: Clock

    def user(self, name: str) -> User:
        found = self.users.find(name)
        assert found is not None
        return found

    def run(self, run: str, **result: Any) -> None:
        """A run on record; `result` beside what every report has."""
        self.ledger.start_run(run, {"scenario": {"title": f"Story of {run}", "narrative": run, "sources": []}})
        told = {"run_id": run, "status": "finished", "breaches": [], "compliance": "pass", "findings": [], **result}
        self.ledger.end_run(run, "finished", told)

    def put(self, run: str, session: str = "", who: str = "risk1", **result: Any) -> str:
        """A run put to review; the item's id."""
        self.run(run, **result)
        return self.reviews.put(session or f"s-{run}", 1, run, who=who, why="for Thursday").id


@contextmanager
def home_at(path: Path, policy: Policy | None = None, people: dict[str, Role] = PEOPLE) -> Iterator[Home]:
    settings, clock = Settings(home=path), Clock()
    ledger, secret = open_recorder(settings), SecretFile(settings.users_path)
    try:
        users = Users(ledger, secret, clock=clock, hasher=LIGHT)
        for name, role in people.items():
            if users.find(name) is None:
                users.add(name, role, PHRASE, by="boss")
        yield Home(ledger, users, Reviews(ledger, users, policy, clock=clock), secret, clock)
    finally:
        secret.close()
        ledger.close()

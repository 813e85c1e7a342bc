"""Attacks on a home by somebody who cannot sign: on the ledger's rows, its index, the report files and the log.

An attack changes a home that `build` made; `answers` is everything that the ledger tells its readers, so that what an
attack changes there is seen.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from finllm.errors import FinllmError
from finllm.guardrails.audit import LogReader, open_recorder, read_witnessed, verify_log, witness_log
from finllm.guardrails.audit.home import Held, verify_home
from finllm.guardrails.audit.merkle import leaf_hash
from finllm.guardrails.audit.reading import open_reading
from finllm.guardrails.audit.records import FILES
from finllm.guardrails.audit.storage import Layout, record_json, record_line
from finllm.memory.answers import answer_entry
from finllm.memory.ledger import Ledger
from finllm.scheduler.record import CALL, PLACEMENT, Entry
from finllm.settings import Settings

Attack = Callable[["Victim"], None]


@dataclass(frozen=True)
class Victim:
    """A home with its witness, what was in it, and a copy of it as it was before its last run."""

    settings: Settings
    witness: Path
    earlier: Path
    keys: tuple[str, ...]
    runs: tuple[str, ...]
    random: random.Random

    def sql(self, statement: str, *values: Any) -> None:
        with contextlib.closing(sqlite3.connect(self.settings.ledger_path)) as db, db:
            db.execute("PRAGMA foreign_keys=OFF")
            assert db.execute(statement, values).rowcount > 0, statement

    def key(self) -> str:
        return self.random.choice(self.keys)

    def run(self) -> str:
        return self.random.choice(self.runs)

    def use(self) -> int:
        with contextlib.closing(sqlite3.connect(self.settings.ledger_path)) as db:
            return int(self.random.choice(db.execute("SELECT id FROM use").fetchall())[0])

    def file(self) -> Path:
        return self.random.choice(sorted((self.settings.home / "runs").rglob("report.*")))


def build(folder: Path, seed: int) -> Victim:
    """A home of two to four runs in two sessions, some of whose answers come from the ledger; a witness saw all."""
    source = random.Random(seed)
    settings, witness, earlier = Settings(home=folder / "home"), folder / "witness", folder / "earlier"
    runs = [f"20261101-0{n}0000-run-{source.randrange(16**4):04x}" for n in range(source.randrange(2, 5))]
    keys: list[str] = []
    for session in (runs[:-1], runs[-1:]):
        with contextlib.closing(open_recorder(settings)) as ledger:
            for run in session:
                keys += _play(ledger, run, settings.home / "runs" / run, source)
        if session != runs[-1:]:
            shutil.copytree(settings.home, earlier)
    witness_log(LogReader(settings.audit_dir), witness)
    return Victim(settings, witness, earlier, tuple(dict.fromkeys(keys)), tuple(runs), source)


def _play(ledger: Ledger, run: str, folder: Path, source: random.Random) -> list[str]:
    request = {"scenario": {"title": f"Event of {run}", "sources": []}, "portfolio": {"sha256": "ab"}, "seed": 1}
    ledger.start_run(run, request)
    keys: list[str] = []
    for node in ("narrative", "validator", "stress_tester"):
        asked = Entry(f"placement-{run}-{node}", PLACEMENT, "broker", {"agent": node},
                      {"chosen": "edge", "refused": {}, "rule": "v1"})  # fmt: skip
        said = {"text": "large", "choices": {"size": {"large": source.random()}}}
        call = Entry(f"call-{source.randrange(4)}-{node}", CALL, "edge", {"prompt": {"user": node}}, said)
        ledger.record(asked, run_id=run, node=node)
        if ledger.lookup(call.key) is None:
            ledger.record(call, run_id=run, node=node)
        else:
            ledger.used(call.key, run_id=run, node=node)
        keys += [asked.key, call.key]
    human = answer_entry(run, {"options": ["withhold", "accept"]}, {"answer": "withhold"})
    ledger.record(human, run_id=run, node="human")
    result = {"total": source.randrange(-(10**6), 10**6), "verdict": "aligned", "compliance": "pass"}
    ledger.end_run(run, source.choice(["finished", "blocked"]), result)
    folder.mkdir(parents=True)
    files = {name: json.dumps([name, result]).encode() for name in ("report.json", "report.md", "report.html")}
    digests = {name: sha256(content).hexdigest() for name, content in files.items()}
    ledger.record(Entry(f"files-{run}", FILES, "finllm", {"run": run, "folder": str(folder)}, {"files": digests}),
                  run_id=run, node="report")  # fmt: skip
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [*keys, human.key]


def answers(victim: Victim) -> dict[str, Any]:
    """What the ledger's readers are told: each entry, the uses and the row of each run; an error as its message."""
    found: dict[str, Any] = {}

    def ask(name: str, question: Callable[[], Any]) -> None:
        try:
            found[name] = question()
        except FinllmError as error:
            found[name] = error

    try:
        with open_reading(victim.settings) as ledger:
            for key in victim.keys:
                ask(f"entry {key}", lambda key=key: ledger.lookup(key))
            for run in victim.runs:
                ask(f"uses of {run}", lambda run=run: ledger.uses(run))
                ask(f"run {run}", lambda run=run: _told(ledger.run(run)))
    except FinllmError as error:
        found["all"] = error
    return found


def _told(row: Any) -> Any:
    return None if row is None else (row.request, row.result)


def verdict(victim: Victim) -> tuple[str, list[Held]]:
    """What `audit verify --witness` says: its words for the first damage, or nothing, and the home's files."""
    try:
        log = verify_log(victim.settings.audit_dir, read_witnessed(victim.witness))
        if log.first is not None:
            return f"{log.first.kind}: {log.first.what}", []
        return "", verify_home(victim.settings.audit_dir, victim.settings.ledger_path)
    except FinllmError as error:
        return error.message, []


def _edited(table: str, column: str, change: str, where: Callable[[Victim], tuple[str, Any]]) -> Attack:
    def attack(victim: Victim) -> None:
        name, value = where(victim)
        victim.sql(f"UPDATE {table} SET {column} = {change} WHERE {name} = ?", value)

    return attack


def _by_key(victim: Victim) -> tuple[str, Any]:
    return "key", victim.key()


def _by_call(victim: Victim) -> tuple[str, Any]:
    return "key", victim.random.choice([key for key in victim.keys if key.startswith("call")])


def _by_run(victim: Victim) -> tuple[str, Any]:
    return "id", victim.run()


def _by_use(victim: Victim) -> tuple[str, Any]:
    return "id", victim.use()


def _swapped_answers(victim: Victim) -> None:
    one, two = victim.random.sample([key for key in victim.keys if key.startswith("call")], 2)
    victim.sql("UPDATE entry SET key = '-' WHERE key = ?", one)
    victim.sql("UPDATE entry SET key = ? WHERE key = ?", one, two)
    victim.sql("UPDATE entry SET key = ? WHERE key = '-'", two)


def _run_deleted(victim: Victim) -> None:
    run = victim.run()
    victim.sql("DELETE FROM run WHERE id = ?", run)
    victim.sql("DELETE FROM use WHERE run_id = ?", run)


def _forged_answer(victim: Victim) -> None:
    victim.sql("INSERT INTO entry VALUES ('call-forged', 'call', 'edge', 0, '{}', '{\"text\": \"small\"}')")
    victim.sql("INSERT INTO use (run_id, node, key, reused, at_ns) VALUES (?, 'narrative', 'call-forged', 0, 0)",
               victim.run())  # fmt: skip


def _forged_record(victim: Victim) -> None:
    """The row and a record of it at the log's end, which no checkpoint covers."""
    key = victim.random.choice([key for key in victim.keys if key.startswith("call")])
    said = '{"choices": {}, "text": "small"}'
    victim.sql("UPDATE entry SET response = ? WHERE key = ?", said, key)
    reader = LogReader(victim.settings.audit_dir)
    first = next(json.loads(data) for _, data in reader.records() if json.loads(data)["body"].get("task") == key)
    body = first["body"] | {"response": sha256(said.encode()).hexdigest(), "blobs": []}
    data = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    record = record_json(reader.meta.log, reader.size, data)
    with Layout(victim.settings.audit_dir).records(0).open("ab") as file:
        file.write(record_line(record, leaf_hash(record)))


def _rolled_back(*names: str) -> Attack:
    def attack(victim: Victim) -> None:
        for name in names:
            here, then = victim.settings.home / name, victim.earlier / name
            if then.is_dir():
                shutil.rmtree(here)
                shutil.copytree(then, here)
            else:
                shutil.copyfile(then, here)

    return attack


def _file(change: Callable[[bytes], bytes | None]) -> Attack:
    def attack(victim: Victim) -> None:
        path = victim.file()
        changed = change(path.read_bytes())
        if changed is None:
            path.unlink()
        else:
            path.write_bytes(changed)

    return attack


def _log_line(change: Callable[[bytes, random.Random], bytes]) -> Attack:
    def attack(victim: Victim) -> None:
        path = Layout(victim.settings.audit_dir).records(0)
        path.write_bytes(change(path.read_bytes(), victim.random))

    return attack


def _flipped(data: bytes, source: random.Random) -> bytes:
    at = source.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << source.randrange(8))]) + data[at + 1 :]


def _blob_flipped(victim: Victim) -> None:
    path = Layout(victim.settings.audit_dir).blobs(0)
    path.write_bytes(_flipped(path.read_bytes(), victim.random))


def _without_a_line(data: bytes, source: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    del lines[source.randrange(len(lines))]
    return b"".join(lines)


ATTACKS: dict[str, Attack] = {
    "an answer is edited": _edited("entry", "response", "replace(response, 'large', 'small')", _by_call),
    "a probability is edited": _edited("entry", "response", "json_set(response, '$.choices.size.large', 0.001)",
                                       _by_call),
    "a question is edited": _edited("entry", "request", "'{}'", _by_key),
    "who answered is edited": _edited("entry", "actor", "'another'", _by_key),
    "the kind of an entry is edited": _edited("entry", "kind", "'state'", _by_key),
    "two answers are swapped": _swapped_answers,
    "an answer is deleted": lambda v: v.sql("DELETE FROM entry WHERE key = ?", v.key()),
    "a use is deleted": lambda v: v.sql("DELETE FROM use WHERE id = ?", v.use()),
    "a use is moved to another run": _edited("use", "run_id", "'another'", _by_use),
    "a use is moved to another node": _edited("use", "node", "'compliance'", _by_use),
    "when a use was is edited": _edited("use", "at_ns", "at_ns + 1", _by_use),
    "a use is said to be new": _edited("use", "reused", "1 - reused", _by_use),
    "a use leads to another entry": lambda v: v.sql("UPDATE use SET key = ? WHERE id = ?", "call-forged", v.use()),
    "an answer is forged": _forged_answer,
    "an answer and its record are forged": _forged_record,
    "a run is deleted": lambda v: v.sql("DELETE FROM run WHERE id = ?", v.run()),
    "a run and its uses are deleted": _run_deleted,
    "a request is edited": _edited("run", "request", "json_set(request, '$.seed', 2)", _by_run),
    "a report is edited": _edited("run", "result", "json_set(result, '$.total', 512750)", _by_run),
    "a report is taken away": _edited("run", "result", "NULL", _by_run),
    "a status is edited": _edited("run", "status", "'waiting'", _by_run),
    "when a run began is edited": _edited("run", "created_ns", "created_ns - 3600000000000", _by_run),
    "a title is edited": lambda v: v.sql("UPDATE title SET title = 'Calm' WHERE run_id = ?", v.run()),
    "the index leads to another record": lambda v: v.sql("UPDATE log_place SET seq = 0 WHERE seq = ?",
                                                         v.random.randrange(2, 8)),
    "the index is emptied": lambda v: v.sql("DELETE FROM log_place"),
    "the index is said to hold all": lambda v: v.sql("UPDATE log_read SET through = 100000"),
    "the index is of another log": lambda v: v.sql("UPDATE log_read SET log = 'other'"),
    "the ledger is rolled back": _rolled_back("ledger.sqlite"),
    "the log is rolled back": _rolled_back("audit"),
    "the ledger and the log are rolled back": _rolled_back("ledger.sqlite", "audit"),
    "a report file is edited": _file(lambda data: data.replace(b"Compliance", b"Compl1ance")),
    "a report file is cut": _file(lambda data: data[:-3]),
    "a report file is removed": _file(lambda data: None),
    "a record is edited": _log_line(_flipped),
    "a record is deleted": _log_line(_without_a_line),
    "a blob is edited": _blob_flipped,
}  # fmt: skip

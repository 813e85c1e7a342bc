"""What the audit log withstands and how fast it is; fills docs/benchmarks-audit.md.

`python -m benchmarks.audit` does all of it, in parts that may be named: `attacks`, `clean`, `kills`, `disk`, `build`,
`append`, `verify`, `run`, `held`. Results are kept in build/audit; `page` writes the page from them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.guardrails.audit.attacks import ATTACKS, build

from benchmarks.audit_held import held
from benchmarks.audit_page import PAGE, RESULTS, page
from finllm.errors import FinllmError
from finllm.guardrails.audit import AuditLog, LogReader, read_witnessed, verify_log, witness_log
from finllm.guardrails.audit.keys import SigningKey
from finllm.guardrails.audit.records import use_recorded
from finllm.memory.reading import Use
from finllm.scheduler.record import CALL, Entry

BIG = RESULTS / "million"
MILLION = 1_000_000
SEEDS, CLEAN, KILLS = 200, 2_000, 200
KEY = SigningKey(sha256(b"benchmark").digest())


def call(index: int, *, blob: bool) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A record as a model call leaves it, with its request and response as blobs or only their hashes."""
    offer = {"name": "edge:SmolLM2-135M-Instruct:Q4_0", "tier": "edge", "build": "llama-cpp-python", "context": 4096}
    request = {
        "prompt": {"system": "You read events.", "user": f"{index} Mines close a strait to tankers. " * 12},
        "template": [{"step": "Choice", "field": "severity", "values": ["low", "medium", "high"]}],
        "weights_sha256": "a" * 64, "precision": "Q4_0", "seed": 0, "agent": "narrative", "prompt_version": "abc",
        "offer": offer,
    }  # fmt: skip
    response = {"text": '{"severity": "high"}', "choices": {"severity": {"high": 0.7}}, "prompt_tokens": 300,
                "output_tokens": 30, "seconds": 0.8}  # fmt: skip
    use = Use("narrative", sha256(str(index).encode()).hexdigest(), False, Entry(
        str(index), CALL, offer["name"], request, response))  # fmt: skip
    body, blobs = use_recorded(use, f"run-{index // 60}", index, time.time_ns(), "session", recovered=False)
    return (body, blobs) if blob else ({**body, "blobs": []}, {})


def attacks() -> dict[str, Any]:
    with ProcessPoolExecutor(2) as pool:
        caught = dict(zip(ATTACKS, pool.map(_attack, ATTACKS), strict=True))
    return {"seeds": SEEDS, "caught": {name: one[0] for name, one in caught.items()},
            "kinds": {name: one[1] for name, one in caught.items()}}  # fmt: skip


def _attack(name: str) -> tuple[int, dict[str, int]]:
    """How many of the seeds were caught with the right record named, and in what words."""
    caught, kinds = 0, Counter[str]()
    for seed in range(SEEDS):
        with scratch() as folder:
            victim = build(folder, seed)
            expected = ATTACKS[name](victim)
            first = verify_log(victim.folder, read_witnessed(victim.witness)).first
            good = first is not None and first.index == expected.index and first.kind in expected.kinds
            caught += good
            kinds[first.kind if first else "nothing"] += 1
            if not good:
                print(f"MISSED {name} seed {seed}: expected {expected}, found {first}", file=sys.stderr)
    return caught, dict(kinds)


def clean() -> dict[str, Any]:
    with ProcessPoolExecutor(2) as pool:
        return {"logs": CLEAN, "alarms": sum(pool.map(_alarm, range(CLEAN), chunksize=50))}


def _alarm(seed: int) -> bool:
    with scratch() as folder:
        victim = build(folder, 10**6 + seed, fewest=1)
        return not verify_log(victim.folder, read_witnessed(victim.witness)).complete


_WRITER = """
import sys
from pathlib import Path
from finllm.guardrails.audit.keys import SigningKey
from finllm.guardrails.audit.log import AuditLog
from finllm.guardrails.audit.recorder import AuditedRecorder
from finllm.scheduler.record import CALL, Entry
home, first = Path(sys.argv[1]), int(sys.argv[2])
log = AuditLog(home / "audit", SigningKey(b"k" * 32), segment_records=64)
ledger = AuditedRecorder(home / "ledger.sqlite", log, home / "audit")
asked = open(home / "asked", "a")
for n in range(first, first + 100_000):
    key = f"key-{n}"
    if ledger.lookup(key) is None:
        print(n, file=asked, flush=True)
        entry = Entry(key, CALL, "edge", {"prompt": "x" * (n % 900)}, {"text": str(n)})
        ledger.record(entry, run_id="run", node="n")
    else:
        ledger.used(key, run_id="run", node="n")
    print(n, flush=True)
"""


def kills() -> dict[str, Any]:
    """One home, killed again and again at random points; each time the calls start over and are answered or made."""
    source = random.Random(7)
    acknowledged: set[int] = set()
    with scratch() as home:
        first = 0
        for _kill in range(KILLS):
            first = max(first, max(acknowledged, default=0) - 3)
            command = [sys.executable, "-c", _WRITER, str(home), str(first)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                line = process.stdout.readline()
                assert line, process.stderr.read() if process.stderr else ""
                acknowledged.add(int(line))
                time.sleep(source.random() * 0.06)
                process.send_signal(signal.SIGKILL)
                acknowledged |= {int(one) for one in process.stdout.read().split("\n")[:-1]}
        log = AuditLog(home / "audit", SigningKey(b"k" * 32))
        log.close()
        verdict = verify_log(home / "audit")
        bodies = [json.loads(data)["body"] for _, data in LogReader(home / "audit").records()]
        recorded = Counter(body["task"] for body in bodies if body["action"] == "call.recorded")
        asked = Counter((home / "asked").read_text().split())
        with contextlib.closing(sqlite3.connect(home / "ledger.sqlite")) as db:
            rows = {row[0] for row in db.execute("SELECT key FROM entry")}
            uses = {row[0] for row in db.execute("SELECT id FROM use")}
        audited = Counter(body["ledger"]["use"] for body in bodies if "use" in body.get("ledger", {}))
        unasked = uses - audited.keys()
        return {
            "kills": KILLS, "acknowledged": len(acknowledged), "damage": len(verdict.damage),
            "lost_from_audit": sum(f"key-{n}" not in recorded for n in acknowledged),
            "lost_from_ledger": sum(f"key-{n}" not in rows for n in acknowledged),
            "recorded_twice": sum(count > 1 for count in recorded.values()),
            "uses_twice_in_audit": sum(count > 1 for count in audited.values()),
            "rows_without_a_record_not_believed": len(unasked),
            "recovered": sum(body.get("recovered") is True for body in bodies),
            "recorded_call_made_again": sum(count > 1 and f"key-{n}" in recorded_before(bodies, n)
                                            for n, count in asked.items()),
            "asked_again_unrecorded": sum(count > 1 for count in asked.values()),
        }  # fmt: skip


def recorded_before(bodies: list[dict[str, Any]], n: str) -> set[str]:
    """The key, if it has two records of having been made: the ledger would have had to forget it."""
    key = f"key-{n}"
    return {key} if sum(b["action"] == "call.recorded" and b.get("task") == key for b in bodies) > 1 else set()


_FULL = """
import sys
from pathlib import Path
from finllm.errors import RecordError
from finllm.guardrails.audit.keys import SigningKey
from finllm.guardrails.audit.log import AuditLog
from finllm.guardrails.audit.recorder import AuditedRecorder
from finllm.scheduler.record import CALL, Entry
home, audit = Path(sys.argv[1]), Path(sys.argv[2])
try:
    log = AuditLog(audit, SigningKey(b"k" * 32))
    ledger = AuditedRecorder(home / "ledger.sqlite", log, audit)
    for n in range(int(sys.argv[3]), 100_000):
        ledger.record(Entry(f"key-{n}", CALL, "e", {"p": "x" * 900}, {"t": n}), run_id="run", node="n")
        print(n, flush=True)
except RecordError as error:
    print("REFUSED", error.message, file=sys.stderr)
    sys.exit(7)
"""


def disk() -> dict[str, Any]:
    """Real disks: a full tmpfs, one that is read-only, and a limit on the size of a file. Needs root to mount."""
    found: dict[str, Any] = {}
    with scratch() as home:
        audit = home / "small"
        audit.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(audit)], check=True)
        try:
            found["full"] = _refused(home, audit / "audit", 0)
            subprocess.run(["mount", "-o", "remount,size=64m", str(audit)], check=True)
            found["full"] |= _whole(home, audit / "audit", found["full"]["acknowledged"])
            subprocess.run(["mount", "-o", "remount,ro", str(audit)], check=True)
            found["read_only"] = _refused(home, audit / "audit", 10_000)
            subprocess.run(["mount", "-o", "remount,rw", str(audit)], check=True)
            found["read_only"] |= _whole(home, audit / "audit", 0)
        finally:
            subprocess.run(["umount", str(audit)], check=True)
    with scratch() as home:
        found["file_size_limit"] = _refused(home, home / "audit", 0, limit="ulimit -f 300; ")
        found["file_size_limit"] |= _whole(home, home / "audit", found["file_size_limit"]["acknowledged"])
    return found


def _refused(home: Path, audit: Path, first: int, limit: str = "") -> dict[str, Any]:
    program = home / "program.py"
    program.write_text(_FULL, encoding="utf-8")
    command = f'{limit}exec "{sys.executable}" "{program}" "{home}" "{audit}" {first}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=120)
    return {"exit": done.returncode, "acknowledged": len(done.stdout.split()), "said": done.stderr.strip()[-200:]}


def _whole(home: Path, audit: Path, acknowledged: int) -> dict[str, Any]:
    """After space is there again: the log opens, has what was acknowledged, and the rows kept in the ledger follow."""
    from finllm.guardrails.audit.recorder import AuditedRecorder

    log = AuditLog(audit, SigningKey(b"k" * 32))
    AuditedRecorder(home / "ledger.sqlite", log, audit).close()
    bodies = [json.loads(data)["body"] for _, data in LogReader(audit).records()]
    tasks = Counter(body["task"] for body in bodies if body["action"] == "call.recorded")
    with contextlib.closing(sqlite3.connect(home / "ledger.sqlite")) as db:
        rows = {row[0] for row in db.execute("SELECT key FROM entry")}
    return {"lost": sum(f"key-{n}" not in tasks for n in range(acknowledged)), "ledger_rows": len(rows),
            "rows_without_audit": len(rows - tasks.keys()),
            "recovered": sum(body.get("recovered") is True for body in bodies),
            "damage": len(verify_log(audit).damage)}  # fmt: skip


def append(threads: int, *, blob: bool, seconds: float = 8.0, folder: Path | None = None) -> dict[str, Any]:
    """Records per second and the wait for each, of threads that each wait for their record to be durable."""
    with scratch(folder or RESULTS) as home:
        log = AuditLog(home / "audit", KEY)
        waits: list[list[float]] = [[] for _ in range(threads)]
        begin, stop = threading.Barrier(threads + 1), threading.Event()

        def write(own: list[float], number: int) -> None:
            begin.wait()
            at = number * 10**7
            while not stop.is_set():
                said = call(at, blob=blob)
                started = time.perf_counter()
                log.append(*said)
                own.append(time.perf_counter() - started)
                at += 1

        workers = [threading.Thread(target=write, args=(own, number)) for number, own in enumerate(waits)]
        for worker in workers:
            worker.start()
        begin.wait()
        started = time.perf_counter()
        time.sleep(seconds)
        stop.set()
        for worker in workers:
            worker.join()
        took = time.perf_counter() - started
        log.close()
        ordered = sorted(wait for own in waits for wait in own)
        assert log_size(home / "audit") == len(ordered)
        return {"threads": threads, "blobs": blob, "per_second": len(ordered) / took, "records": len(ordered),
                "p50_ms": _at(ordered, 0.5), "p99_ms": _at(ordered, 0.99), "max_ms": ordered[-1] * 1e3}  # fmt: skip


def log_size(folder: Path) -> int:
    return LogReader(folder).size


def _at(ordered: list[float], share: float) -> float:
    return ordered[int(share * (len(ordered) - 1))] * 1e3


def build_million() -> dict[str, Any]:
    """A log of a million records, a tenth of them with their blobs, and a witness of it."""
    shutil.rmtree(BIG, ignore_errors=True)
    started = time.perf_counter()
    log = AuditLog(BIG / "audit", KEY)
    for first in range(0, MILLION, 2_000):
        log.append_many([call(at, blob=at % 10 == 0) for at in range(first, first + 2_000)])
    log.close()
    witness_log(LogReader(BIG / "audit"), BIG / "witness")
    size = sum(path.stat().st_size for path in (BIG / "audit" / "segments").iterdir())
    return {"seconds": time.perf_counter() - started, "bytes": size}


def verify_million() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for processes in (2, 1):
        started = time.perf_counter()
        verdict = verify_log(BIG / "audit", read_witnessed(BIG / "witness"), processes=processes)
        found[f"seconds_{processes}"] = time.perf_counter() - started
        assert verdict.complete, verdict
        assert verdict.size == MILLION
    started = time.perf_counter()
    AuditLog(BIG / "audit", KEY).close()
    return {**found, "open_to_write_seconds": time.perf_counter() - started}


def real_run() -> dict[str, Any]:
    """What the audit log costs a real run: the time spent on it beside the run's, both measured in one run.

    Opening, starting, ending and closing count whole, with the ledger's part of them.
    """
    program = """
import sys, time, json
from finllm.guardrails.audit.log import AuditLog
from finllm.guardrails.audit.recorder import AuditedRecorder
spent = []
def timed(real):
    def call(*args, **options):
        begun = time.perf_counter()
        try: return real(*args, **options)
        finally: spent.append(time.perf_counter() - begun)
    return call
for name in ("__init__", "_audit", "start_run", "end_run", "close"):
    setattr(AuditedRecorder, name, timed(getattr(AuditedRecorder, name)))
AuditLog.__init__ = timed(AuditLog.__init__)
from finllm.cli.main import main
begun = time.perf_counter()
sys.stdout = open("/dev/null", "w")
code = main(["run", "hormuz-blockade", "--quiet", "--json"])
print(json.dumps([code, time.perf_counter() - begun, sum(spent), len(spent)]), file=sys.stderr)
"""
    with scratch() as home:
        best: list[Any] = []
        for _time in range(2):
            done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "FINLLM_HOME": str(home)},
                                  capture_output=True, text=True, check=True, timeout=200)  # fmt: skip
            best = json.loads(done.stderr.strip().splitlines()[-1])
        code, run_seconds, audit_seconds, calls = best
        size = sum(path.stat().st_size for path in (home / "audit" / "segments").iterdir()) // 2
        return {"exit": code, "run_seconds": run_seconds, "audit_seconds": audit_seconds, "calls": calls,
                "share": audit_seconds / run_seconds, "bytes_per_run": size}  # fmt: skip


@contextlib.contextmanager
def scratch(beside: Path | None = None) -> Iterator[Path]:
    """A folder in memory, or on the disk where `beside` lies."""
    memory = Path("/dev/shm")
    where = beside or (memory if memory.is_dir() else Path(tempfile.gettempdir()))
    where.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=where, prefix="audit-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def appends() -> dict[str, Any]:
    return {"runs": [append(threads, blob=blob) for threads in (1, 8, 16, 32) for blob in (False, True)]}


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "attacks": attacks, "clean": clean, "kills": kills, "disk": disk, "build": build_million, "append": appends,
    "verify": verify_million, "run": real_run, "held": held,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}, page; all by default")
    parts = parser.parse_args(arguments).parts or [*PARTS, "page"]
    if unknown := set(parts) - {*PARTS, "page"}:
        parser.error(f"no part {', '.join(sorted(unknown))}")
    for part in parts:
        if part == "page":
            PAGE.write_text(page(), encoding="utf-8")
            continue
        try:
            found = PARTS[part]()
        except (FinllmError, subprocess.CalledProcessError, AssertionError) as error:
            sys.exit(f"{part}: {error}")
        found["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{part}.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        print(part, json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""What it costs a run answered from the ledger that each row is held against the audit log; for benchmarks.audit.

The home's log is filled up until its open segment is nearly full, which is the dearest case: every process that opens
the log hashes that segment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from finllm.guardrails.audit import AuditLog, LogReader
from finllm.guardrails.audit.keys import keyring
from finllm.guardrails.audit.storage import SEGMENT_RECORDS
from finllm.settings import Settings

RUNS = 5
_TIMED = """
import json, sys, time
from finllm.guardrails.audit.held import HeldToLog
spent = [0.0, 0]
def timed(inner):
    def outer(*args, **kwargs):
        if spent[1]:
            return inner(*args, **kwargs)
        spent[1], began = 1, time.process_time()
        try:
            return inner(*args, **kwargs)
        finally:
            spent[0] += time.process_time() - began
            spent[1] = 0
    return outer
for name in ("__init__", "index", "appended", "look", "entry", "uses", "run"):
    setattr(HeldToLog, name, timed(getattr(HeldToLog, name)))
from finllm.cli.main import main
code = main(["run", "hormuz-blockade", "--json"])
print(json.dumps({"held": spent[0], "whole": time.process_time(), "code": code}), file=sys.stderr)
"""


def held() -> dict[str, Any]:
    """Seconds of CPU of whole runs answered from the ledger, and the part of them that is the comparison."""
    with tempfile.TemporaryDirectory(prefix="finllm-held-") as folder:
        settings = Settings(home=Path(folder))
        environ = {**os.environ, "FINLLM_HOME": folder}
        _run(environ)
        log = AuditLog(settings.audit_dir, keyring(settings))
        body = {"action": "note.recorded", "actor": {"kind": "service", "name": "filler"}, "blobs": [], "node": "n",
                "request": "0" * 64, "response": "0" * 64, "run": "filler", "text": "x" * 400}  # fmt: skip
        size = LogReader(settings.audit_dir).size
        log.append_many([({**body, "task": f"{n:064}"}, {}) for n in range(SEGMENT_RECORDS - size - 400)])
        log.close()
        _run(environ)
        found = [_run(environ) for _ in range(RUNS)]
    parts = sorted(one["held"] for one in found)
    whole = sorted(one["whole"] for one in found)
    middle = RUNS // 2
    return {"runs": RUNS, "records_in_the_segment": SEGMENT_RECORDS - 400, "comparison_cpu_seconds": parts[middle],
            "run_cpu_seconds": whole[middle], "share_percent": 100 * parts[middle] / whole[middle]}  # fmt: skip


def _run(environ: dict[str, str]) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", _TIMED], env=environ, capture_output=True, text=True, check=True,
                          timeout=600)  # fmt: skip
    said: dict[str, float] = json.loads(done.stderr.splitlines()[-1])
    assert said["code"] in (0, 3), done.stderr
    return said

"""Forks `finllm` commands whose models answer from a script, each a process that a signal may end: `python -m …`.

A line of stdin is a command, `{"argv": [], "env": {}, "out": path, "err": path}`. The answers are its process,
`{"pid": number}`, and, when that has ended, `{"code": number}`, negative for a signal. What takes seconds to import and
to load is there before the fork, so that a campaign of hundreds takes minutes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from finllm.desk import desk
from finllm.evaluation.calibrate import calibrate
from finllm.interrupts import STOPPING
from finllm.models.ladder import Rung
from finllm.scheduler.backends import Backend
from finllm.scheduler.calibration.measured import DecodeRate, Speed
from finllm.testing import ScriptedBackend
from tests.graphs.test_flow import READS_BADLY, READS_WELL
from tests.warm import RememberingEmbedder, RememberingSecond


def scripted(_opening: object) -> list[Backend]:
    """An edge that reads badly, so that the deep one reads again and every node has its turn."""
    return [ScriptedBackend([READS_BADLY], name="edge"),
            ScriptedBackend([READS_WELL], name="deep", tier="deep", precision="F16")]  # fmt: skip


@contextlib.contextmanager
def scripted_rung(_source: object, rung: Rung, _settings: object) -> Iterator[Backend]:
    yield ScriptedBackend([READS_WELL], name=rung.precision, precision=rung.precision, weights=rung.sha256)


def measured(_rung: Rung, _threads: int) -> Speed:
    rate = DecodeRate(batch=1, tokens_per_second=1.0, joules_per_token=1.0)
    return Speed(prefill_tokens_per_second=1.0, prefill_joules_per_token=1.0, decode=(rate,), memory_bytes=1,
                 energy="modelled", energy_basis="none")  # fmt: skip


def prepare() -> None:
    """Load what commands would, and put scripts in place of models."""
    import chromadb
    import pandas
    import statsforecast

    del chromadb, pandas, statsforecast
    embedder = RememberingEmbedder()
    embedder.embed(["a text"])
    second = RememberingSecond(embedder)
    second.logits(["a text"])
    desk.open_backends = scripted  # pyright: ignore[reportAttributeAccessIssue]
    desk.Embedder = lambda: embedder  # pyright: ignore[reportAttributeAccessIssue]
    desk.SecondOpinion = lambda _: second  # pyright: ignore[reportAttributeAccessIssue]
    assert calibrate.__kwdefaults__ is not None
    calibrate.__kwdefaults__.update(open_backend=scripted_rung, measure=measured)


def serve() -> dict[str, Any]:
    """Fork a process for each command; comes back in that process, with the command."""
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        pid = os.fork()
        if pid == 0:
            return asked
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)
    os._exit(0)


def become(asked: dict[str, Any]) -> None:
    for number in STOPPING:
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
    os.environ.update(asked["env"])
    for descriptor, path in ((1, asked["out"]), (2, asked["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["finllm", *asked["argv"]]


if __name__ == "__main__":
    prepare()
    print(json.dumps({"ready": True}), flush=True)
    become(serve())
    from finllm.cli.main import main

    sys.exit(main())

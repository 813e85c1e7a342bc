"""The chat on questions of a hand kept apart, which saw no wording of ours: right kinds, refusals, figures, time."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.page import write_section
from finllm.chat.catalogue import NONE
from finllm.chat.chat import Chat, Reply
from finllm.chat.intent import Intent
from finllm.chat.opening import open_table
from finllm.chat.table import LEFT_OUT, Table
from finllm.guardrails.audit.reading import open_reading
from finllm.guardrails.grounding import ungrounded
from finllm.models.embedding import Embedder
from finllm.settings import Settings
from finllm.tools.evidence import EvidenceTable

ROOT = Path(__file__).resolve().parent.parent
KEPT_APART = ROOT / "training" / "corpus" / "chat" / "third.jsonl"
HOME = ROOT / "build" / "chat-home"
SCENARIOS = ("hawkish-surprise", "ceasefire", "hormuz-blockade")
"""What is run first; the last of them is on the table."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--questions", type=Path, default=KEPT_APART)
    parser.add_argument("--home", type=Path, default=HOME)
    parser.add_argument("--look", action="store_true", help="print each miss; write no page")
    wanted = parser.parse_args()
    settings = Settings(home=wanted.home)
    _make_runs(settings)
    rows = [json.loads(line) for line in wanted.questions.read_text(encoding="utf-8").splitlines() if line.strip()]
    embedder = Embedder()
    with open_reading(settings, lambda line: print(line, file=sys.stderr)) as ledger:
        table = open_table(ledger, settings)
        intent = Intent(embedder.embed, embedder.digest)
        Chat(table, intent).ask("what does the book lose")  # the embedding model is loaded by now
        found = [_asked(row, table, intent) for row in rows]
        told = scores(rows, found, intent.card.sure, table)
    print(json.dumps(told, indent=1))
    if wanted.look:
        for row, (reply, _) in zip(rows, found, strict=True):
            kind = reply.understood.kind if reply.understood else NONE
            if kind != row["kind"]:
                odds = reply.understood.probability if reply.understood else 0.0
                print(f"{row['kind']:16} {kind:16} {odds:.2f}  {row['text']}")
        return
    write_section("The analyst's chat", "make bench-chat", _page(told, len(rows)))


def _make_runs(settings: Settings) -> None:
    if settings.ledger_path.exists():
        return
    for scenario in SCENARIOS:
        subprocess.run([sys.executable, "-m", "finllm.cli.main", "run", scenario, "--quiet"], check=True,
                       env={"FINLLM_HOME": str(settings.home), "PATH": ""}, stdout=subprocess.DEVNULL)  # fmt: skip


def _asked(row: dict[str, Any], table: Table, intent: Intent) -> tuple[Reply, float]:
    """The reply, and the seconds that it took; a question that follows another is asked after it."""
    chat = Chat(table, intent)
    if row.get("after"):
        chat.ask(row["after"])
    began = time.monotonic()
    reply = chat.ask(row["text"])
    return reply, time.monotonic() - began


def scores(rows: list[dict[str, Any]], found: list[tuple[Reply, float]], sure: float, table: Table) -> dict[str, float]:
    """The figures that the bars are on. `sure`: the probability from which on an answer is called confident."""
    said = [reply.understood.kind if reply.understood else NONE for reply, _ in found]
    odds = [reply.understood.probability if reply.understood else 0.0 for reply, _ in found]
    right = [row["kind"] for row in rows]
    answered = [at for at, kind in enumerate(said) if kind != NONE]
    asked = [at for at, kind in enumerate(right) if kind != NONE]
    wrong = [at for at in answered if said[at] != right[at]]
    neither = [at for at in wrong if said[at] not in rows[at].get("also", ())]
    refused = [at for at in asked if said[at] == NONE]
    near = [at for at in refused if right[at] in [kind for kind, _ in found[at][0].near]]
    seconds = np.array([took for _, took in found])
    return {
        "questions": len(rows),
        "answered, of those that have an answer": sum(said[at] != NONE for at in asked) / len(asked),
        "answered, of all": len(answered) / len(rows),
        "right kind, of answered": 1 - len(wrong) / len(answered),
        "the same, with a kind that its author allowed besides": 1 - len(neither) / len(answered),
        "wrong and sure, of all": sum(odds[at] >= sure for at in wrong) / len(rows),
        "refused, of those that have no answer": sum(said[at] == NONE for at in range(len(rows)) if at not in asked)
        / max(len(rows) - len(asked), 1),
        "right kind among those offered, of refused": len(near) / max(len(refused), 1),
        "figures without a row": float(sum(_loose(reply, table.rows) for reply, _ in found)),
        "sentences left out by the guard": float(sum(reply.lines.count(LEFT_OUT) for reply, _ in found)),
        "p50, s": float(np.quantile(seconds, 0.5)),
        "p95, s": float(np.quantile(seconds, 0.95)),
        "longest, s": float(seconds.max()),
    }


def _loose(reply: Reply, rows: EvidenceTable) -> int:
    """Figures of an answer that no row carries, as the guard reads any sentence, and rows that are not handed over."""
    known = {row.id for row in reply.rows}
    told = re.sub(r"«[^»]*»", "", " ".join(reply.lines))
    missing = sum(id not in known for id in re.findall(r"\[(E\d+)\]", told))
    return missing + sum(len(ungrounded(line, rows)) for line in reply.lines)


def _page(told: dict[str, float], n: int) -> str:
    bars = {
        "answered, of those that have an answer": "≥ 0.80", "right kind, of answered": "≥ 0.90",
        "wrong and sure, of all": "≤ 0.02", "figures without a row": "0", "p50, s": "≤ 1.5", "p95, s": "≤ 4",
    }  # fmt: skip
    what = (
        f"{n} questions of a hand kept apart, which was given the kinds with one sentence each and saw no form and no "
        "other question, scored once. All hands are language models of one family. Warm, in one process; a what-if "
        "is asked for and not computed."
    )
    lines = [what, "", "| | found | bar |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value:.3g} | {bars.get(name, '')} |" for name, value in told.items())])


if __name__ == "__main__":
    main()

"""Which run is the newest version of a refined run: one ledger row per version, and the first writer wins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finllm.memory.ledger import Ledger
from finllm.memory.reading import LedgerReader
from finllm.scheduler.placement.task import key_of
from finllm.scheduler.record import Entry, EntryKind

VERSION = EntryKind("version")
"""A run's next version, or what came of a draft of one."""
NODE = "refine"
"""Under which versions are on record, beside the nodes of the run."""


def newest_version(run_id: str, ledger: LedgerReader) -> tuple[int, str]:
    """The number of a run's newest version, and the run that holds it."""
    version, holder = 1, run_id
    while (entry := ledger.lookup(_key(run_id, version + 1))) is not None:
        version, holder = version + 1, entry.response["run"]
    return version, holder


def swap_version(run_id: str, version: int, said: Mapping[str, Any], ledger: Ledger) -> str:
    """Compare-and-swap: `said["run"]` becomes this version where there is none; who holds it, in whatever process."""
    key, about = _key(run_id, version), {"run": run_id, "version": version}
    kept = ledger.swap(Entry(key, VERSION, "finllm", about, dict(said)), run_id=run_id, node=NODE)
    return str(kept.response["run"])


def note_draft(run_id: str, version: int, draft: str, said: Mapping[str, Any], ledger: Ledger) -> None:
    """Put on record what came of a draft that is no version."""
    about = {"run": run_id, "version": version, "draft": draft}
    ledger.record(Entry(key_of("version", about), VERSION, "finllm", about, dict(said)), run_id=run_id, node=NODE)


def waiting_drafts(run_id: str, ledger: LedgerReader) -> list[str]:
    """Drafts that waited for a person, in order."""
    uses = ledger.uses(run_id, VERSION)
    return [use.entry.request["draft"] for use in uses if use.entry.response.get("verdict") == "waiting"]


def _key(run_id: str, version: int) -> str:
    return key_of("version", {"run": run_id, "version": version})

"""What every door works on, without a terminal: questions about a book, runs, batches and their verification.

Names are imported when they are first asked for: a stress test needs neither the graph nor a model's libraries.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finllm.sessions.batch import Batch, Ended, Member, find_batch, open_batch, run_batch
    from finllm.sessions.batch_driver import BatchWanted, drive_batch
    from finllm.sessions.batch_report import BatchReport, write_summaries
    from finllm.sessions.inputs import FoundLimits, Inputs, find_limits, read_inputs
    from finllm.sessions.refine import Refined, refine_run
    from finllm.sessions.requests import Checked, build_request, find_scenario
    from finllm.sessions.reverse import ReverseAnswers, ReverseQuestion, answer_reverse
    from finllm.sessions.run_driver import drive_run, new_run, resumed_run, write_run
    from finllm.sessions.stress import StressAnswer, StressQuestion, answer_stress

_OWNERS = {
    "batch": ("Batch", "Ended", "Member", "find_batch", "open_batch", "run_batch"),
    "batch_driver": ("BatchWanted", "drive_batch"),
    "batch_report": ("BatchReport", "write_summaries"),
    "inputs": ("FoundLimits", "Inputs", "find_limits", "read_inputs"),
    "refine": ("Refined", "refine_run"),
    "requests": ("Checked", "build_request", "find_scenario"),
    "reverse": ("ReverseAnswers", "ReverseQuestion", "answer_reverse"),
    "run_driver": ("drive_run", "new_run", "resumed_run", "write_run"),
    "stress": ("StressAnswer", "StressQuestion", "answer_stress"),
}

__all__ = [
    "Batch",
    "BatchReport",
    "BatchWanted",
    "Checked",
    "Ended",
    "FoundLimits",
    "Inputs",
    "Member",
    "Refined",
    "ReverseAnswers",
    "ReverseQuestion",
    "StressAnswer",
    "StressQuestion",
    "answer_reverse",
    "answer_stress",
    "build_request",
    "drive_batch",
    "drive_run",
    "find_batch",
    "find_limits",
    "find_scenario",
    "new_run",
    "open_batch",
    "read_inputs",
    "refine_run",
    "resumed_run",
    "run_batch",
    "write_run",
    "write_summaries",
]


def __getattr__(name: str) -> Any:
    for module, names in _OWNERS.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

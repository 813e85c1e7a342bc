"""The tamper-evident record: an append-only Merkle log with signed checkpoints, its verification, and its witness."""

from finllm.guardrails.audit.log import AuditLog
from finllm.guardrails.audit.reader import LogReader
from finllm.guardrails.audit.recorder import AuditedRecorder, open_recorder
from finllm.guardrails.audit.verify import Verification, verify_log
from finllm.guardrails.audit.witness import Witnessed, read_witnessed, witness_log

__all__ = [
    "AuditLog", "AuditedRecorder", "LogReader", "Verification", "Witnessed", "open_recorder", "read_witnessed",
    "verify_log", "witness_log",
]  # fmt: skip

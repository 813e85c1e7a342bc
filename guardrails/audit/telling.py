"""What a cluster grants and refuses, put into the audit log of the home where it happens."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Generator, Mapping
from typing import Any

from finllm.guardrails.audit.keys import keyring
from finllm.guardrails.audit.log import AuditLog
from finllm.guardrails.audit.records import told_by_cluster
from finllm.settings import Settings


@contextlib.contextmanager
def telling(settings: Settings) -> Generator[Callable[[str, Mapping[str, Any]], None]]:
    """`told(what, about)` for a process that keeps no ledger: the record is durable when it returns.

    Errors: RecordError; InputError for a signing key that cannot be read.
    """
    log, session = AuditLog(settings.audit_dir, keyring(settings)), secrets.token_hex(6)

    def told(what: str, about: Mapping[str, Any]) -> None:
        body, blobs = told_by_cluster(what, about, session)
        log.append(body, blobs)

    try:
        yield told
    finally:
        log.close()

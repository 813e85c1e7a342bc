"""Trust between the nodes of a cluster: an authority, certificates that end soon, tokens to join, signed answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from finllm.errors import BackendError

__all__ = ["Refused", "Told"]

Told = Callable[[str, Mapping[str, Any]], None]
"""`told(what, about)`: puts on record what was granted or refused, such as `cluster.refused`; texts, whole numbers."""


class Refused(BackendError):
    """A certificate, token, signature or proof that does not hold: the other side is not believed."""

    kind = "refused"

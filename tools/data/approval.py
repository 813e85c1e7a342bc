"""What an approval of a scenario is of: its content by digest, without what does not make it another scenario."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from finllm.tools.evidence import sha256_of

BESIDE = ("approved_by", "lineage", "budget", "currency")
"""Fields that an approval is not of: itself, where the scenario was made, what a run may spend, what it is told in."""


def scenario_digest(scenario: Mapping[str, Any]) -> str:
    """Hex sha256 of a scenario as JSON has it: another narrative, source, shock, day or horizon is another scenario."""
    said = {name: value for name, value in scenario.items()
            if name not in BESIDE and value not in (None, [], {}, ())}  # fmt: skip
    return sha256_of(json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False))

"""What a run heard through its reader of channels, put together again from the record alone."""

from __future__ import annotations

from collections.abc import Sequence

from finllm.agents.pooling import ByChannels
from finllm.desk.request import RunRequest
from finllm.graphs.through import CHANNELS, heard_again
from finllm.memory.reading import Use


def heard_on_record(uses: Sequence[Use], request: RunRequest) -> ByChannels | None:
    """The channels of the event and of the sources that were read, as the narrative agent had them; None where the run
    had no reader. `uses`: what the run used, in order; an intake that was done again counts once."""
    read = [use for use in uses if use.entry.kind == CHANNELS and use.node == "intake"]
    keys = [use.key for use in read]
    count = next((many for many in range(1, len(keys) + 1) if len(keys) % many == 0 and
                  keys == keys[:many] * (len(keys) // many)), 0)  # fmt: skip
    return heard_again([use.entry for use in read[:count]], request.scenario.channels)

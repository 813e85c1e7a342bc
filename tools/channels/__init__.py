"""Transmission channels: the closed, reviewed list of ways by which an event reaches markets, and what each moves."""

from finllm.tools.channels.directions import Pull, directions, pulls, sizes
from finllm.tools.channels.opened import STATES, Opened, State
from finllm.tools.channels.table import NOTHING, Channel, channel_table, known_channel, with_columns
from finllm.tools.channels.together import Told, together

__all__ = [
    "NOTHING",
    "STATES",
    "Channel",
    "Opened",
    "Pull",
    "State",
    "Told",
    "channel_table",
    "directions",
    "known_channel",
    "pulls",
    "sizes",
    "together",
    "with_columns",
]  # fmt: skip

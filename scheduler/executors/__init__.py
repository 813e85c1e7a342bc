"""Where backends run: in this process, or on the nodes of a cluster; what decides sees backends either way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from finllm.scheduler.backends import Backend
from finllm.scheduler.backends.kind import Opening
from finllm.scheduler.calibration.measured import RungCalibration
from finllm.scheduler.placement.fleet import BackendSpec

__all__ = ["Executor", "Joining", "Measured"]


class Executor(Protocol):
    """Opens the backends that a process dispatches calls to. Calls are what it dispatches, never tokens."""

    def open(self, opening: Opening) -> list[Backend]:
        """The backends that are there now; closed with the opening. Errors: InputError for one set up wrongly."""
        ...

    def joined(self) -> Sequence[Backend]:
        """Backends that came since this, or `open`, was last asked. Costs next to nothing: the broker asks often."""
        ...


@runtime_checkable
class Measured(Protocol):
    """A backend whose speed was measured where it runs. `link`: s there and back, as measured."""

    @property
    def calibration(self) -> RungCalibration | None: ...

    @property
    def link(self) -> float: ...


class Joining(Protocol):
    """Who knows of backends that come later, as the broker asks. `spec`: one of them as placing sees it."""

    def joined(self) -> Sequence[Backend]: ...

    def spec(self, backend: Backend) -> BackendSpec: ...

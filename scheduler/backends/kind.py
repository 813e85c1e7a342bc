"""What a kind of backend is: it names the backends that the settings ask for, and opens each when told to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

from finllm.events import EventBus
from finllm.scheduler.backends import Backend, Offer
from finllm.scheduler.backends.joined import Joined
from finllm.settings import Settings


class Closes(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=Closes)


@dataclass(frozen=True)
class Opening:
    """What backends are opened with. `runs` will go on side by side; what is opened is closed with `closing`."""

    settings: Settings
    bus: EventBus
    closing: contextlib.ExitStack
    runs: int = 1
    _shared: dict[Any, Any] = field(default_factory=dict[Any, Any])

    def shared(self, make: Callable[[], T]) -> T:
        """What `make` makes, once for all backends of this opening, and closed with it."""
        if make not in self._shared:
            self._shared[make] = self.kept(make())
        return self._shared[make]

    def kept(self, one: T) -> T:
        """The same, closed with this opening."""
        self.closing.callback(one.close)
        return one


@dataclass(frozen=True)
class Site:
    """A backend that the settings name, before it is opened.

    `offer`: as far as it is known without asking; what only the backend can tell is empty or 0. `place`: where it is,
    in words. `open` may raise BackendError where it cannot be reached, InputError where it is set up wrongly.
    """

    offer: Offer
    place: str
    open: Callable[[Opening], Backend]


class Kind(Protocol):
    """One kind of backend, as the registry lists it. `name`: as offers and `finllm nodes add --kind` call it."""

    @property
    def name(self) -> str: ...

    def sites(self, settings: Settings) -> Iterable[Site]:
        """The backends of this kind that the settings name; nothing is opened. Errors: InputError."""
        ...


@runtime_checkable
class ByURL(Protocol):
    """A kind whose backends `finllm nodes add` joins by their URL."""

    @property
    def name(self) -> str: ...

    def site(self, node: Joined) -> Site:
        """The backend of a server that is joined, or might be."""
        ...

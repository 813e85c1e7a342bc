"""The kinds of backends, one line each: what is listed here is opened, shown, checked and priced everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from finllm.errors import BackendError, InputError
from finllm.events import Noted
from finllm.scheduler.backends import Backend
from finllm.scheduler.backends.joined import joined
from finllm.scheduler.backends.kind import ByURL, Kind, Opening, Site
from finllm.scheduler.backends.llama_cpp import LlamaCpp
from finllm.scheduler.backends.openai_compatible import OpenAICompatible
from finllm.scheduler.backends.vllm import VllmServer
from finllm.scheduler.backends.vllm_inprocess import VllmInProcess
from finllm.settings import Settings

KINDS: list[Kind] = [
    LlamaCpp(),
    VllmServer(),
    VllmInProcess(),
    OpenAICompatible(),
]


def sites(settings: Settings, kinds: Sequence[Kind] = KINDS) -> Iterator[Site]:
    """Every backend that the settings name, by kind; nothing is opened. Errors: InputError."""
    for node in joined(settings):
        by_url(node.kind)
    for kind in kinds:
        yield from kind.sites(settings)


def by_url(name: str) -> ByURL:
    """The kind of that name, whose backends are joined by URL. Errors: InputError where there is none."""
    known = {kind.name: kind for kind in KINDS if isinstance(kind, ByURL)}
    if name not in known:
        raise InputError(f"no kind of server is called {name!r}", fix=f"use one of {', '.join(known)}")
    return known[name]


def open_backends(opening: Opening, kinds: Sequence[Kind] = KINDS) -> list[Backend]:
    """Every backend that the settings name and that can be reached; the others are noted, with the mend.

    Errors: InputError for one that is set up wrongly.
    """
    backends: dict[str, Backend] = {}
    for site in sites(opening.settings, kinds):
        told = f"without the {site.offer.tier} backend at {site.place}"
        try:
            backend = site.open(opening)
        except BackendError as error:
            opening.bus.emit(Noted(level="warning", message=f"{told}: {error.message}; {error.fix}"))
            continue
        if backends.setdefault(backend.offer.name, backend) is not backend:
            opening.bus.emit(Noted(level="warning", message=f"{told}: {backend.offer.name!r} is there already"))
    return list(backends.values())

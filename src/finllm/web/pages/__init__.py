"""The pages, each with its doors; what is in no list here is not reachable."""

from __future__ import annotations

import functools

from finllm.web.doors import Door


@functools.cache
def all_doors() -> tuple[Door, ...]:
    """Every door of the desk."""
    from finllm.web.pages import assets, explanations, items, lists, live_pages, provider, runs, sessions, signing_in

    modules = (signing_in, provider, items, explanations, runs, sessions, lists, live_pages, assets)
    return tuple(door for module in modules for door in module.DOORS)

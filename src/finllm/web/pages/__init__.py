"""The pages, each with its doors; what is in no list here is not reachable."""

from __future__ import annotations

import functools

from finllm.web.doors import Door


@functools.cache
def all_doors() -> tuple[Door, ...]:
    """Every door of the desk."""
    from finllm.web.pages import assets, items, lists, live_pages, runs, sessions, signing_in

    modules = (signing_in, items, runs, sessions, lists, live_pages, assets)
    return tuple(door for module in modules for door in module.DOORS)

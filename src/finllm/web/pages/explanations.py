"""Asking what would flip a result: from a run's page or an item's, worked on beside, with a bound."""

from __future__ import annotations

from starlette.responses import RedirectResponse, Response

from finllm.errors import InputError
from finllm.web.doors import SIGNED_IN, Asked, Door
from finllm.web.pages.items import item_of


def of_run(asked: Asked) -> Response:
    """Ask it of a run."""
    return _ask(asked, asked.path["run"], f"/run/{asked.path['run']}?wait=yes#flips")


def of_item(asked: Asked) -> Response:
    """Ask it of an item's run."""
    shown = item_of(asked)
    return _ask(asked, shown.item.row.run, f"/item/{shown.id}#flips")


def _ask(asked: Asked, run: str, back: str) -> Response:
    shown = asked.serving.reports.get(run)
    if shown.report is None:
        raise InputError(f"run {run!r} is {shown.status}: it has no result to explain", fix="wait for its end")
    asked.serving.explaining.begin(shown.id, asked.who.name)
    return RedirectResponse(back, 303)


DOORS = (
    Door("POST", "/run/{run}/explain", SIGNED_IN, of_run),
    Door("POST", "/item/{item}/explain", SIGNED_IN, of_item),
)

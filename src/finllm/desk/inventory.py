"""The backends that a desk on this machine would open, with their calibration, listed without opening one."""

from __future__ import annotations

from typing import Any

from finllm.desk.calibrated import calibrated_here
from finllm.scheduler.backends.registry import sites
from finllm.settings import Settings


def configured(settings: Settings) -> list[dict[str, Any]]:
    """A row for each backend of the settings. Errors: InputError for a model that cannot be used."""
    rows: list[dict[str, Any]] = []
    for site in sites(settings):
        offer = site.offer
        found = calibrated_here(settings, offer)
        rows.append({
            "name": offer.name, "kind": offer.kind, "tier": offer.tier, "precision": offer.precision,
            "runs": offer.where, "where": site.place,
            "probabilities": f"shares of {offer.votes} answers" if offer.votes else "its own",
            "calibrated": found.words,
            "calibration_holds": found.calibration is not None or not offer.calibratable,
        })  # fmt: skip
    return rows

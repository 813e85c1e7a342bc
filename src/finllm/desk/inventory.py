"""The backends that a desk here would open, as they are known without opening one, and their calibration."""

from __future__ import annotations

from typing import Any

from finllm.desk.calibrated import calibrated_here
from finllm.desk.desk import backend_name, local_tiers
from finllm.models.cards import adapter_for
from finllm.models.ladder import derived_rungs
from finllm.models.registry import default_source
from finllm.scheduler.backends import Offer
from finllm.scheduler.backends.llama_cpp import llama_build
from finllm.settings import Settings


def configured(settings: Settings) -> list[dict[str, Any]]:
    """A row for each backend of the settings. Errors: InputError for a model that cannot be used."""
    source = default_source(settings)
    rungs = derived_rungs(source.sha256, settings)
    rows: list[dict[str, Any]] = []
    for tier, precision in local_tiers(settings):
        adapter, _ = adapter_for(source, settings, precision)
        model = source.name if adapter is None else f"{source.name}+{adapter.path.stem}"
        digest = None if adapter is None else adapter.sha256
        rung = next((one for one in rungs if (one.precision, one.adapter_sha256) == (precision, digest)), None)
        offer = Offer(backend_name(tier, model, precision), tier, precision, rung.sha256 if rung else "",
                      llama_build(), settings.context)  # fmt: skip
        found = calibrated_here(settings, offer)
        rows.append({
            "name": offer.name, "tier": tier, "precision": precision,
            "where": "this machine" if rung else "this machine; not derived yet",
            "calibrated": found.words, "calibration_holds": found.calibration is not None,
        })  # fmt: skip
    served = [*settings.vllm_urls, *([str(settings.vllm_folder)] if settings.vllm_folder else [])]
    rows += [
        {"name": settings.vllm_model or "as served", "tier": "deep", "precision": settings.vllm_precision,
         "where": where, "calibrated": "by its own counters", "calibration_holds": True}
        for where in served
    ]  # fmt: skip
    return rows

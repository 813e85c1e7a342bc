"""For which agents a doubtful answer is asked again on a finer backend: where finer was measured to be better."""

from __future__ import annotations

from collections.abc import Sequence

from finllm.agents.roles import AGENTS
from finllm.desk.calibrated import calibrated_here
from finllm.scheduler.backends import Backend, Offer
from finllm.scheduler.calibration.measured import RungCalibration
from finllm.settings import Settings

BETTER = 0.05
"""Share of an agent's probes by which a finer rung must be better: below it, asking again only costs."""


def escalating(settings: Settings, backends: Sequence[Backend]) -> frozenset[str]:
    """The roles. `auto`: those that a finer rung was calibrated to serve better; all, where a stronger model is."""
    every = frozenset(agent.role for agent in AGENTS)
    offers = [backend.offer for backend in backends]
    if settings.escalate != "auto":
        return every if settings.escalate == "always" else frozenset()
    if any(offer.stronger for offer in offers):
        return every
    known = {offer.tier: _calibration(settings, offer) for offer in offers}
    edge, deep = known.get("edge"), known.get("deep")
    if edge is None or deep is None:
        return frozenset()
    better = {role for role, of in deep.quality.items() if role in edge.quality
              and of.score - edge.quality[role].score >= BETTER}  # fmt: skip
    return every & better


def _calibration(settings: Settings, offer: Offer) -> RungCalibration | None:
    return calibrated_here(settings, offer).calibration

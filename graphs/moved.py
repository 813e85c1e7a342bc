"""What the judgements of a run moved, in lines of its report: covariance, band, refusals, route, what is open."""

from __future__ import annotations

from collections.abc import Iterator

from finllm.agents.narrative import NARRATIVE
from finllm.graphs.rows import StressRow
from finllm.graphs.state import AfterCompliance
from finllm.tools.evidence import EvidenceTable, show

LASTS = {"days": (1, 10), "weeks": (3, 60), "months": (20, 250)}
"""Trading days of a scenario's horizon that go with an event read as lasting so long; outside them it is said."""


def plausibility_line(stress: StressRow) -> list[str]:
    """How plausible the stress-tester finds the shocks, for the summary; with what the band does about it."""
    moved = stress.moved
    if moved is None or moved.plausibility is None:
        return []
    line = f"The stress-tester finds the shocks {moved.plausibility} ([[{moved.plausibility_probability}]])"
    if moved.happened and moved.plausibility != "plausible":
        return [f"{line}, but they happened, and widen no band."]
    wider = f", so the band is drawn [[{moved.width}]] times as wide" if moved.width else ""
    if moved.nearer is None:
        return [f"{line}{wider}."]
    if moved.usual and moved.plausibility != "plausible":
        return [f"{line}, but only [[{moved.nearer}]] of past moves went less far: the band stays as it is."]
    return [f"{line}; [[{moved.nearer}]] of past moves went less far{wider}."]


def moved_lines(state: AfterCompliance, table: EvidenceTable) -> Iterator[str]:
    """A line for each judgement that moved a number, a route or a line of the report, or did not and might have."""
    moved = state.stress.moved
    if moved is None:
        return

    def shown(id: str | None) -> str:
        return "" if id is None else f"{show(table[id].value, table[id].unit)} [{id}]"

    if moved.regime is None:
        yield "covariance: by the size of the shocks alone; market-signal gave no regime"
    else:
        kind = (
            "of stress at any size of shock (finllm stress --stressed)"
            if moved.stressed
            else "by the size of the shocks"
        )
        yield f"covariance: {kind}, as market-signal calls the regime {moved.regime}, {shown(moved.regime_probability)}"
    if moved.weight is not None:
        yield (f"band: a mixture, since market-signal leans {moved.lean}, {shown(moved.lean_probability)}, and the "
               f"text was read the other way; the text has a weight of {shown(moved.weight)}")  # fmt: skip
    if moved.plausibility is not None:
        width = f"{shown(moved.width)} times as wide, as" if moved.width else "as it is; "
        beside = f"; {shown(moved.nearer)} of past moves went less far" if moved.nearer else ""
        yield (f"band: {width.rstrip()} the stress-tester finds the shocks {moved.plausibility}, "
               f"{shown(moved.plausibility_probability)}{beside}")  # fmt: skip
    yield from (f"shock on {shock.factor}: {shock.refused}" for shock in state.shocks if shock.refused)
    yield from (f"route: the event was read again, since {one.escalations[-1].reason}"
                for one in state.opinions if one.agent == NARRATIVE.role and one.escalations
                and one.escalations[-1].cause in ("checks", "second opinion", "validator"))  # fmt: skip
    yield from _open_ends(state)


def _open_ends(state: AfterCompliance) -> Iterator[str]:
    """What the reading says of time that the scenario's horizon does not hold."""
    if state.reading is None:
        return
    lasts, days = state.reading.judgement.horizon, state.stress.result.horizon
    least, most = LASTS[lasts]
    if days < least:
        yield f"horizon: the event was read as lasting {lasts}; what comes after the scenario's horizon is not in it"
    elif days > most:
        yield f"horizon: the event was read as lasting {lasts}; the scenario's horizon goes on long after it"

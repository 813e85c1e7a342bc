"""What a result has against it, and whether that makes a command exit with 3: one rule behind every door."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finllm.graphs.report import Report
    from finllm.sessions.inputs import Inputs
    from finllm.tools.data.limits import Limits
    from finllm.tools.pnl.coverage import Coverage
    from finllm.tools.pnl.limits import Cuts, Held
    from finllm.tools.pnl.outcome import EngineResult, ReverseResult


@dataclass(frozen=True)
class Against:
    """What speaks against a result.

    `breached`: a limit is. `unchecked`: a limit could not be checked, so nobody knows that it is not breached.
    `blocked`: it must not go out. `incomplete`: it is about less of the book than asked for.
    """

    breached: bool = False
    unchecked: bool = False
    blocked: bool = False
    incomplete: bool = False

    def failed_on(self, asked: Iterable[str]) -> Sequence[str]:
        """Which of `breach`, `block`, `incomplete` are asked for and hold; a limit not checked counts as breached."""
        holds = {"breach": self.breached or self.unchecked, "block": self.blocked, "incomplete": self.incomplete}
        wanted = set(asked)
        return [name for name, one in holds.items() if one and name in wanted]


def against(held: Held, restricted: Sequence[str], coverage: Coverage | None) -> Against:
    """What speaks against a result that no compliance agent has seen."""
    incomplete = coverage is not None and not coverage.complete
    block = bool(restricted) or (incomplete and coverage is not None and coverage.thresholds.block)
    return Against(bool(held.breaches), bool(held.unchecked), block, incomplete)


def against_report(report: Report) -> Against:
    """What speaks against the report of a run."""
    incomplete = report.coverage is not None and not report.coverage.complete
    return Against(bool(report.breaches), bool(report.unchecked), report.status == "blocked", incomplete)


def against_limits(
    cuts: Cuts, result: EngineResult | ReverseResult, inputs: Inputs, limits: Limits
) -> tuple[Held, tuple[str, ...]]:
    """How the cuts of a result stand to limits, and the restricted names that its book holds."""
    from finllm.tools.pnl.limits import Known, hold, restricted_in

    return hold(cuts, Known.of(result, inputs.factors.drivers), limits), restricted_in(inputs.portfolio, limits)


def limits_json(held: Held, restricted: Sequence[str]) -> dict[str, object]:
    """How a result stands to its limits, as `--json` prints it."""
    return {
        "breaches": [one.model_dump(mode="json") for one in held.breaches],
        "unchecked": [one.model_dump(mode="json") for one in held.unchecked],
        "restricted": list(restricted),
    }

"""The version in hand, kept in memory: its state, its engine, its market; so that an edit shows its figures at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from finllm.desk.desk import Desk, RunContext, open_run
from finllm.desk.request import RunRequest
from finllm.graphs import flow
from finllm.graphs.nodes.validation import Voices, checks_of
from finllm.graphs.shocks import engine_of
from finllm.graphs.state import Finished
from finllm.review.replay import replay
from finllm.review.whatif import WhatIf
from finllm.sessions.answers import Figures
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.evidence import show

if TYPE_CHECKING:
    from finllm.running import Runner
    from finllm.tools.pnl.engine import Engine

NO_MODEL = frozenset(("shock", "read", "accept", "withhold", "horizon", "hold", "complete", "trade", "replay"))
"""Edits whose figures the tools can tell before any model is asked."""


@dataclass(frozen=True)
class InHand:
    """A finished version with its engine. `run` can ask nothing: it is for the tools."""

    state: Finished
    run: RunContext
    engine: Engine

    @classmethod
    def of(cls, state: Finished, run: RunContext, before: InHand | None = None) -> InHand:
        """With the engine of the version before, where that is of the same book, factors and day."""
        kept = _engine(before, state, run.request) if before else None
        return cls(state, run, kept or engine_of(state, run))

    def what_if(self) -> WhatIf:
        return WhatIf(self.state, self.run, self.engine)

    def provisional(self, request: RunRequest) -> Figures:
        """What the tools say of the edited request, with what the agents said of the version in hand.

        The run that follows may differ: its agents are asked what they had not been asked. Errors: InputError.
        """
        run = replace(self.run, request=request)
        state = self.state
        if request.portfolio != self.run.request.portfolio or request.currency != self.run.request.currency:
            book = value_portfolio(request.portfolio, run.market, request.as_of, request.currency)
            state = state.model_copy(update={"book": book})
        state = state.model_copy(update={"checks": tuple(checks_of(state, Voices(run, state.through)))})
        what_if = WhatIf(state, run, _engine(self, state, request))
        cuts, verdict = what_if.cuts, what_if.base
        return Figures(
            float(cuts.total), {name: float(one) for name, one in cuts.by_factor.items()},
            {name: float(one) for name, one in cuts.by_position.items()}, request.currency, verdict.compliance,
            tuple(f"{subject} ({kind})" for kind, subject in sorted(verdict.breached)),
        )  # fmt: skip


def rebuilt(run_id: str, request: RunRequest, desk: Desk, runner: Runner) -> InHand:
    """A version that ended before: from its checkpoint, else replayed from its record."""
    run = open_run(desk, run_id, request)
    state = runner.run(flow.state_of(run))
    if state is None:
        state = Finished.model_validate(runner.run(replay(run_id, desk)).state)
    return InHand.of(state, run)


def _engine(one: InHand, state: Finished, request: RunRequest) -> Engine | None:
    """The engine that is at hand, where it would be the same if it were made again."""
    before = one.run.request
    same = (
        state.book == one.state.book and request.as_of == before.as_of and request.thresholds == before.thresholds
        and request.future == before.future
        and request.scenario.age == before.scenario.age and request.scenario.factors == before.scenario.factors
        and _named(request) == _named(before) and request.prices == before.prices
    )  # fmt: skip
    return one.engine if same else None


def _named(request: RunRequest) -> frozenset[str]:
    """Factors beyond the table's that the scenario names, which the engine has to know."""
    from finllm.tools.data.factors import factor_table

    return request.scenario.insisted - frozenset(factor_table())


def differs(provisional: Figures, found: Figures) -> list[str]:
    """What the run found otherwise than was shown before it, in words; empty where it is the same to the cent."""
    unit = found.currency.lower()
    lines: list[str] = []
    if round(provisional.total - found.total, 2):
        lines.append(f"P&L {show(found.total, unit)}, and not {show(provisional.total, unit)} as shown before")  # pyright: ignore[reportArgumentType]
    if provisional.compliance != found.compliance:
        lines.append(f"compliance {found.compliance}, and not {provisional.compliance} as shown before")
    return lines

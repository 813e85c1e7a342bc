"""A reverse stress test as a question and its answer: the nearest shocks that lose an amount; no model."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finllm.errors import InputError
from finllm.sessions.failing import Against, against, against_limits, limits_json
from finllm.sessions.inputs import FoundLimits, Inputs, parse_shocks

if TYPE_CHECKING:
    from finllm.tools.export import Format
    from finllm.tools.pnl.factorset import FactorSet
    from finllm.tools.pnl.limits import Held
    from finllm.tools.pnl.outcome import ReverseResult
    from finllm.tools.pnl.reverse_story import ReverseStory
    from finllm.tools.pnl.solve import Watch

_LOSS = re.compile(r"([0-9][0-9_,]*(?:\.[0-9]+)?)\s*(%?)")
_LOSS_FIX = "write a share of the book such as '10%', or an amount such as '500000'"


@dataclass(frozen=True)
class ReverseQuestion:
    """What is to be lost, as a person writes it.

    `loss`: 10% of the book, or 500000 of its currency. `shocks`: what every answer contains, as FACTOR=MOVE. `bounds`:
    how far a factor may move, as FACTOR=LOW:HIGH. `horizon`: trading days. `answers`: how many distinct ones to seek.
    `age`: time passes, up to the horizon.
    """

    loss: str
    shocks: Sequence[str] = ()
    bounds: Sequence[str] = ()
    horizon: int = 20
    answers: int = 3
    seed: int = 0
    age: bool = False


@dataclass(frozen=True)
class ReverseAnswers:
    """The answers that were found, the nearest first; how that one stands to the limits; restricted names held."""

    portfolio: str
    result: ReverseResult
    held: Held
    restricted: tuple[str, ...]
    stories: tuple[ReverseStory, ...] = ()

    @property
    def against(self) -> Against:
        return against(self.held, self.restricted, self.result.coverage)

    def to_json(self) -> dict[str, object]:
        """The result's fields, the portfolio's name, and how the nearest answer stands to the limits."""
        return {"portfolio": self.portfolio, **self.result.model_dump(mode="json"),
                **limits_json(self.held, self.restricted),
                "stories": [one.model_dump(mode="json") for one in self.stories]}  # fmt: skip

    def files(self, formats: Sequence[Format]) -> dict[str, bytes]:
        """The tables in each of the formats, and reverse.json; by file name."""
        from finllm.tools.export import reverse_tables, table_files

        said = json.dumps(self.to_json(), indent=2, allow_nan=False)
        return table_files(reverse_tables(self.result), formats, "reverse") | {"reverse.json": f"{said}\n".encode()}


def answer_reverse(
    inputs: Inputs, question: ReverseQuestion, allowed: FoundLimits | None = None, watch: Watch | None = None
) -> ReverseAnswers:
    """Answer the question. Errors: InputError for a loss, shock or bound that cannot be read, or that nothing meets."""
    from finllm.tools.pnl.limits import Held
    from finllm.tools.pnl.reverse import reverse as solve

    target, inputs = parse_loss(question.loss), inputs.shocked_by(question.shocks)
    fixed, bounds = parse_shocks(question.shocks, inputs.factors), parse_bounds(question.bounds, inputs.factors)
    result = solve(inputs.portfolio, inputs.market, inputs.as_of, question.horizon, target, bounds=bounds, fixed=fixed,
                   answers=question.answers, seed=question.seed, factors=inputs.factors,
                   thresholds=inputs.thresholds, future=inputs.future, currency=inputs.currency,
                   watch=watch, age=question.age, at_hand=inputs.at_hand)  # fmt: skip
    stories = _stories(result, inputs)
    if allowed is None:
        return ReverseAnswers(inputs.portfolio.name, result, Held(), (), stories)
    noted = result.model_copy(update={"notes": (*result.notes, *allowed.notes)})
    held, restricted = against_limits(noted.answers[0], noted, inputs, allowed.limits)
    return ReverseAnswers(inputs.portfolio.name, noted, held, restricted, stories)


def _stories(result: ReverseResult, inputs: Inputs) -> tuple[ReverseStory, ...]:
    """What each answer is like among past events that were over by the day."""
    from finllm.graphs.closest import likeness_of
    from finllm.memory.precedents import load_precedents
    from finllm.tools.data.currencies import factor_currency
    from finllm.tools.pnl.likeness import Moves
    from finllm.tools.pnl.reverse_story import Past, story_of
    from finllm.tools.pnl.sizes import FactorView

    named = {one.factor for answer in result.answers for one in answer.moves}
    currencies = [code for name in sorted(named) if (code := factor_currency(name))]
    view = FactorView(inputs.factors.with_currencies(inputs.market, currencies), inputs.market, inputs.as_of)
    moves = Moves(view)
    past = [
        Past(
            one.id, one.title, one.start.isoformat(), one.end.isoformat(), one.kind, one.region, likeness_of(one, moves)
        )
        for one in load_precedents()
        if one.end <= inputs.as_of
    ]
    return tuple(story_of(one, past, view) for one in result.answers)


def parse_loss(text: str) -> float:
    """A loss written as `10%` (a share below 1) or `500000` (an amount). Errors: InputError for anything else."""
    match = _LOSS.fullmatch(text.strip())
    if match is None:
        raise InputError(f"loss {text!r} is neither a share nor an amount", fix=_LOSS_FIX)
    amount = float(match[1].replace(",", "").replace("_", ""))
    share = bool(match[2])
    if share and not 0 < amount < 100:
        raise InputError(f"loss {text!r} is not between 0 % and 100 %", fix=_LOSS_FIX)
    if not share and amount < 1:
        raise InputError(f"loss {text!r} is an amount below 1", fix=_LOSS_FIX)
    return amount / 100 if share else amount


def parse_bounds(texts: Sequence[str], factors: FactorSet) -> dict[str, tuple[float, float]]:
    """Bounds written as FACTOR=LOW:HIGH. Errors: InputError for one that cannot be read, or two of one factor."""
    found: dict[str, tuple[float, float]] = {}
    for text in texts:
        name, _, both = text.partition("=")
        name = factors.called(name.strip())
        low, colon, high = both.partition(":")
        if not colon:
            raise InputError(f"bound {text!r} is not FACTOR=LOW:HIGH", fix="write it as OIL_WTI=-50%:+50%")
        ends = [factors.parse(name, end.strip()) for end in (low, high)]
        if any(end.in_sigmas for end in ends):
            raise InputError(f"bound {text!r} is in sigmas", fix=f"write it in {factors[name].unit}")
        if ends[0].amount > ends[1].amount:
            raise InputError(f"bound {text!r} ends below its start", fix="write the lower end first")
        if name in found:
            raise InputError(f"{name!r} is bounded twice", fix="give one bound for each factor")
        found[name] = (ends[0].amount, ends[1].amount)
    return found

"""The probabilities of a recorded call as its run took them: calibrated by the card that it was begun with."""

from __future__ import annotations

from collections.abc import Iterable

from finllm.agents.priors import tempered
from finllm.graphs.basis import INPUTS, Standing
from finllm.memory.entries import RecordedCall
from finllm.memory.reading import Use
from finllm.models.ladder import PRUNED
from finllm.scheduler.backends.offer import uncarded
from finllm.scheduler.decoding.filling import Choices


def begun_with(uses: Iterable[Use]) -> Standing | None:
    """What a run stood on when it began; None where that is not among its uses."""
    return next((Standing.model_validate(use.entry.response) for use in uses if use.entry.kind == INPUTS), None)


def calibrated(call: RecordedCall, begun: Standing | None) -> Choices:
    """By field the probability of each value, as the report has it: by the card of the rung that answered."""
    card = None if begun is None else begun.pruned if call.precision == PRUNED and begun.pruned else begun.card
    if begun is not None and call.weights_sha256 in uncarded(one.as_offer() for one in begun.weights):
        card = None
    known = {} if card is None else card.fields_of(call.agent, call.prompt_version)
    return {field: tempered(odds, known[field].temperature) if field in known else odds
            for field, odds in call.choices.items()}  # fmt: skip

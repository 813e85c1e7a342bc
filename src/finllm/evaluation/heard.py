"""The channel reader's part in a scored judgement: the same odds, pooled in the same way, as a run takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finllm.agents.pooling import ByChannels, pool, pool_field, unasked, weight_of
from finllm.desk.channels import ReadsChannels
from finllm.graphs.through import LONGEST, as_recorded
from finllm.tools.data.factors import FACTOR_IDS

FACTOR_FIELD = "factors.{}.direction"


def heard_of_texts(reader: ReadsChannels | None, texts: Sequence[str]) -> list[ByChannels | None]:
    """What the reader says of each text by itself, as a run would keep it; None where there is no reader."""
    if reader is None:
        return [None] * len(texts)
    return [as_recorded(said).heard for said in reader.read([text[:LONGEST] for text in texts])]


def asks_model(fields: Sequence[str], heard: ByChannels | None) -> bool:
    """Whether the language model is asked one of these fields, or the reader alone decides them."""
    decided = unasked(heard)
    return any(field.split(".")[0] not in decided for field in fields)


def odds_of(field: str, model: Mapping[str, float] | None, heard: ByChannels | None) -> dict[str, float]:
    """The odds of a field by both: of the event as a whole, or of a factor's direction."""
    name, _, rest = field.partition(".")
    if name != "factors":
        return pool_field(name, model, heard)
    factor = rest.removesuffix(".direction")
    ways = heard.directions(FACTOR_IDS)[factor] if heard is not None else None
    return pool(model, ways, weight_of("factors"))

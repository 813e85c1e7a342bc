"""Checks a source without a model: who else reports the same, what it contradicts, whether it instructs a machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from finllm.guardrails.crossmodal import Heard
from finllm.tools.data.factors import FactorId

SAME_TEXT = 0.93
"""Cosine similarity of two embeddings above which two texts say the same in nearly the same words."""

SourceVerdict = Literal["credible", "doubtful", "contradicted", "coordinated", "injected"]
Unchecked = Literal["no", "open", "yes"]
"""Whether a source says what nobody can check: it does not, it may by its wording, or it surely does."""
HEARSAY: SourceVerdict = "doubtful"
"""After this verdict a source's text is not read at all, after one of `REJECTED` not a second time."""
REJECTED: tuple[SourceVerdict, ...] = ("injected", "contradicted", HEARSAY)


class SourceChecks(BaseModel):
    """What the checks found of one source. `agreeing` and `opposing` count factors shared with other sources.

    `open`: doubtful for its wording alone, and not surely: the sanity-checker is asked.
    """

    model_config = ConfigDict(frozen=True)

    verdict: SourceVerdict
    agreeing: int
    opposing: int
    twins: tuple[str, ...]
    injections: int
    open: bool = False


def check_provenance(
    ids: Sequence[str],
    publishers: Sequence[str],
    says: Sequence[Mapping[FactorId, Heard]],
    embeddings: npt.NDArray[np.float32],  # (n_sources, n_dimensions), unit norm
    injections: Sequence[int],
    unchecked: Sequence[Unchecked],
) -> dict[str, SourceChecks]:
    """Check every source against the others.

    `injected`: instructions were cut from its text. `coordinated`: other publishers carry nearly the same text.
    `contradicted`: on more factors than not, most of the others say the opposite. `doubtful`: hearsay or what reads
    like a rumour (`unchecked`), which no other source bears out on any factor. Otherwise `credible`.
    """
    similar = embeddings @ embeddings.T if len(ids) else np.zeros((0, 0), dtype=np.float32)
    found: dict[str, SourceChecks] = {}
    for i, id in enumerate(ids):
        twins = tuple(
            ids[j]
            for j in range(len(ids))
            if j != i and _name(publishers[j]) != _name(publishers[i]) and float(similar[i, j]) >= SAME_TEXT
        )
        agreeing, opposing = _company(i, says)
        verdict: SourceVerdict = "credible"
        if injections[i]:
            verdict = "injected"
        elif twins:
            verdict = "coordinated"
        elif opposing > agreeing:
            verdict = "contradicted"
        elif unchecked[i] != "no" and not agreeing:
            verdict = HEARSAY
        found[id] = SourceChecks(
            verdict=verdict,
            agreeing=agreeing,
            opposing=opposing,
            twins=twins,
            injections=injections[i],
            open=verdict == HEARSAY and unchecked[i] == "open",
        )
    return found


def _name(publisher: str) -> str:
    return " ".join(publisher.casefold().split())


def _company(i: int, says: Sequence[Mapping[FactorId, Heard]]) -> tuple[int, int]:
    """Factors on which most other sources that speak say the same, and on which most say the opposite."""
    agreeing = opposing = 0
    for factor, direction in says[i].items():
        if direction not in ("up", "down"):
            continue
        others = [says[j].get(factor) for j in range(len(says)) if j != i]
        same = sum(other == direction for other in others)
        opposite = sum(other in ("up", "down") and other != direction for other in others)
        agreeing += same > opposite
        opposing += opposite > same
    return agreeing, opposing

"""What the guards of a run say of a bare text: whether an instruction is cut from it, and whether it is doubted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finllm.guardrails.hearsay import hearsay
from finllm.guardrails.rumours import rumours, unchecked
from finllm.guardrails.sanitise import Sanitised
from finllm.guardrails.steering import steering
from finllm.models.embedding import Embedder
from finllm.models.injection import INJECTIONS, InjectionJudge
from finllm.models.second_opinion import SecondOpinion, two


class Guards:
    """The judge of instructions and the source checks of a run, loaded on first use. Errors: BackendError."""

    def __init__(self) -> None:
        self._embedder = Embedder()
        self._judge = InjectionJudge(SecondOpinion(self._embedder, name=INJECTIONS))

    def injected(self, texts: Sequence[Sanitised]) -> list[Mapping[str, float]]:
        """Whether a run would cut an instruction from each text, by its rules or by the judge."""
        return [two(float(cut_of(one) > 0 or bool(steering(one.text, self._judge).cut))) for one in texts]

    def doubted(self, texts: Sequence[Sanitised]) -> list[Mapping[str, float] | None]:
        """What the source checks say of each text as the only source; None where the sanity-checker is asked."""
        plain = [one.text for one in texts]
        odds = rumours(plain, self._embedder.embed(plain))
        said = [unchecked(hearsay(text), one) for text, one in zip(plain, odds, strict=True)]
        checked = ["injected" if cut_of(one) else _SAID[told] for one, told in zip(texts, said, strict=True)]
        return [{verdict: 1.0} if verdict else None for verdict in checked]


_SAID = {"yes": "doubtful", "no": "credible", "open": None}


def cut_of(clean: Sanitised) -> int:
    """How many instructions the rules cut from a text."""
    return sum(removed.kind in ("injection", "template") for removed in clean.removed)

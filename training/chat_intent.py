"""Trains the chat's intent head on the catalogue's sentence forms and people's questions; writes head and card.

`python -m training.chat_intent`: the head is fitted on the forms and the questions of every hand in
`training/corpus/chat` but the one that is kept apart. Temperature, thresholds and scores come from what a head says of
each hand's questions that was fitted without that hand.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from finllm.chat import intent
from finllm.chat.catalogue import NONE, catalogue
from finllm.chat.known import known_names
from finllm.chat.slots import find_slots
from finllm.files import sha256_of_file
from finllm.models.embedding import Embedder
from finllm.models.second_opinion import softmax

CORPUS = Path(__file__).parent / "corpus" / "chat"
VARIANTS = 3
"""How often a form with names in it is written out, each time with other names."""
STRENGTH = 1.0
"""Inverse of the head's penalty."""
KEPT_APART = ("third",)
"""The hands that nothing is fitted or chosen on; `benchmarks.chat` scores them."""
NEAR = ("questions",)
"""The hands that had seen the forms: trained on, but no measure of how a stranger's questions fare."""
ANSWERED = 0.85
"""Share of the strangers' questions with an answer that are to get one: half way from the bar to 0.9."""
SURE = 0.01
"""Share of wrong answers among all strangers' questions that may be called sure."""
_FILLERS = {
    "factor": ("oil", "crude", "equities", "the dollar", "gold", "VIX", "rates", "credit spreads", "stocks", "OIL_WTI",
               "EQUITY_US", "the S&P", "10-year yields", "USD_BROAD", "RATE_US_10Y", "GOLD"),
    "position": ("XOM", "AAPL", "Apple", "JPM", "Chevron", "CVX", "Microsoft", "Exxon", "WMT", "the corporate bond",
                 "BAA_CORP_7Y", "WTI_FRONT", "Pfizer", "KO", "Bank of America"),
    "sector": ("energy", "tech", "Financials", "health care", "consumer staples", "industrials", "banks", "pharma"),
    "source": ("hrz-navy-1", "the navy", "the blog", "hrz-blog-1", "Refiners Weekly", "hrz-wire-2", "the newswire",
               "Harbour Street Research", "hrz-agg-1", "the gazette", "hrz-trade-1"),
    "move": ("20%", "-10 %", "+60 %", "50 bp", "100bp", "5 percent", "-3 sigma", "15 points", "30%", "2 sigmas"),
    "row": ("E12", "E274", "e7", "E61", "E95", "E300"),
    "episode": ("Lehman", "Kuwait 1990", "Black Monday", "Suez", "Libya", "the financial crisis", "covid"),
    "loss": ("10%", "500000", "2 million", "1m", "15 percent", "$750,000", "a million dollars"),
    "term": ("VIX", "band", "evidence", "abstain", "shock", "ledger", "calibration", "a circuit", "lease", "rung"),
    "agent": ("validator", "stress-tester", "sanity-checker", "market-signal", "stress tester", "narrative agent"),
    "run": ("20220630-081500-hormuz-closed-for-a-month-1f3a", "the hawkish run", "the ceasefire run"),
}  # fmt: skip


def examples(seed: int) -> tuple[list[str], list[str]]:
    """The catalogue's forms written out, and the kind of each."""
    draw, texts, kinds = random.Random(seed), [], []
    for kind in catalogue().values():
        for form in kind.forms:
            times = VARIANTS if "{" in form else 1
            for _ in range(times):
                texts.append(re.sub(r"\{(\w+)\}", lambda match: draw.choice(_FILLERS[match[1]]), form))
                kinds.append(kind.id)
    return texts, kinds


def hands() -> dict[str, tuple[list[str], list[str]]]:
    """By hand its questions and the kind of each; without those that are kept apart."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for path in sorted(CORPUS.glob("*.jsonl")):
        if path.stem not in KEPT_APART:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            found[path.stem] = [row["text"] for row in rows], [row["kind"] for row in rows]
    return found


def fitted(x: npt.NDArray[np.float32], kinds: Sequence[str], strength: float) -> tuple[npt.NDArray[np.float32], ...]:
    """The head's weight (n_kinds, n_features) and bias, kinds in the catalogue's order."""
    from sklearn.linear_model import LogisticRegression

    names = list(catalogue())
    y = np.array([names.index(kind) for kind in kinds])
    counts = np.bincount(y, minlength=len(names))
    weights = (len(y) / len(names) / counts[y]) ** 0.5
    head = LogisticRegression(C=strength, max_iter=100).fit(x, y, sample_weight=weights)
    return head.coef_.astype(np.float32), head.intercept_.astype(np.float32)


def temperature_of(logits: npt.NDArray[np.float64], y: npt.NDArray[np.int64]) -> float:
    """The temperature with the least log loss."""
    tried = np.geomspace(0.2, 3.0, 40)
    losses = [-np.mean([np.log(softmax(row / one)[right]) for row, right in zip(logits, y, strict=True)])
              for one in tried]  # fmt: skip
    return float(tried[int(np.argmin(losses))])


def thresholds(odds: npt.NDArray[np.float64], y: npt.NDArray[np.int64], none: int) -> tuple[float, float]:
    """From which probability on to answer, so that so many are, and to be sure, so that few of all are wrong."""
    best, said = odds.max(axis=1), odds.argmax(axis=1)
    wrong = (said != y) & (said != none)
    answered = {float(t): ((best >= t) & (said != none))[y != none].mean() for t in np.arange(0.1, 0.95, 0.01)}
    answers = max(t for t, share in answered.items() if share >= ANSWERED)
    sure = next((float(t) for t in np.arange(0.5, 1.0, 0.01) if (wrong & (best >= t)).mean() <= SURE), 0.99)
    return answers, sure


def scored(
    odds: npt.NDArray[np.float64], y: npt.NDArray[np.int64], none: int, answers: float, sure: float
) -> dict[str, float]:
    """The shares that the bars are on, by name."""
    best, said = odds.max(axis=1), odds.argmax(axis=1)
    answered, asked = (best >= answers) & (said != none), y != none
    return {
        "top one": float((said == y).mean()),
        "answered, of those that have an answer": float((answered & asked).sum() / asked.sum()),
        "right kind, of answered": float((said == y)[answered].mean()),
        "wrong and sure, of all": float(((said != y) & answered & (best >= sure)).mean()),
        "refused, of those that have none": float((~answered & ~asked).sum() / max((~asked).sum(), 1)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--look", action="store_true", help="print what is wrong of each hand, write nothing")
    parser.add_argument("--strength", type=float, default=STRENGTH)
    wanted = parser.parse_args()
    embedder, known, names = Embedder(), known_names(), list(catalogue())
    (forms, kinds), asked = examples(0), hands()
    texts = [*forms, *(text for one, _ in asked.values() for text in one)]
    kinds += [kind for _, labels in asked.values() for kind in labels]
    by = np.array(["forms"] * len(forms) + [hand for hand, (one, _) in asked.items() for _ in one])
    x = intent.features(texts, [find_slots(text, known) for text in texts], embedder.embed)
    y, none = np.array([names.index(kind) for kind in kinds]), names.index(NONE)
    logits, strangers = np.zeros((len(texts), len(names))), [hand for hand in asked if hand not in NEAR]
    for hand in strangers:
        weight, bias = fitted(x[by != hand], [kinds[at] for at in np.flatnonzero(by != hand)], wanted.strength)
        logits[by == hand] = x[by == hand] @ weight.T + bias
    far = np.flatnonzero(np.isin(by, strangers))
    temperature = temperature_of(logits[far], y[far])
    odds = np.array([softmax(row / temperature) for row in logits[far]])
    answers, sure = thresholds(odds, y[far], none)
    scores = scored(odds, y[far], none, answers, sure)
    print(json.dumps({"temperature": temperature, "answers": answers, "sure": sure, **scores}, indent=1))
    if wanted.look:
        for row, at in zip(odds, far, strict=True):
            if row.argmax() != y[at]:
                print(f"{by[at]:12} {names[y[at]]:16} {names[int(row.argmax())]:16} {row.max():.2f}  {texts[at]}")
        return
    weight, bias = fitted(x, kinds, wanted.strength)
    data = (f"fitted on {len(forms)} forms and {len(texts) - len(forms)} questions of {len(asked)} hands; thresholds "
            f"and scores on {len(far)} of these, each by a head that was fitted without its hand")  # fmt: skip
    _write(weight, bias, embedder, temperature, answers, sure, scores, data)


def _write(weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32], embedder: Embedder, temperature: float,
           answers: float, sure: float, scores: dict[str, float], data: str) -> None:  # fmt: skip
    from safetensors.numpy import save_file

    path = intent.FOLDER / f"{intent.NAME}.safetensors"
    save_file(
        {name: np.ascontiguousarray(held.astype(np.float16)) for name, held in (("weight", weight), ("bias", bias))},
        path,
    )  # safetensors writes the bytes as they lie
    card = intent.IntentCard(
        sha256=sha256_of_file(path), embedding_sha256=embedder.digest, kinds=tuple(catalogue()),
        temperature=round(temperature, 4), answers=round(answers, 2), sure=round(sure, 2),
        scores={name: round(one, 4) for name, one in scores.items()},
        data=data,
    )  # fmt: skip
    path.with_suffix(".json").write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

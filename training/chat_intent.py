"""Trains the chat's intent head on the catalogue's sentence forms and the development questions; writes head and card.

`python -m training.chat_intent`: the head is fitted on forms and `training/corpus/chat/questions.jsonl`; temperature
and thresholds come from `validation.jsonl` beside it, which no form and no weight was made from.
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
ANSWERED = 0.9
"""Share of the validation questions with an answer that are to get one."""
SURE = 0.01
"""Share of wrong answers among all questions that may be called sure, on the validation set."""
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


def questions(name: str) -> tuple[list[str], list[str]]:
    """The questions of a file, and the kind of each."""
    rows = [json.loads(line) for line in (CORPUS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row["text"] for row in rows], [row["kind"] for row in rows]


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
    parser.add_argument("--look", action="store_true", help="print what is wrong on the validation set, write nothing")
    parser.add_argument("--strength", type=float, default=STRENGTH)
    wanted = parser.parse_args()
    embedder, known, names = Embedder(), known_names(), list(catalogue())
    (forms, kinds), (texts, labels), (unseen, right) = examples(0), questions("questions"), questions("validation")
    every = [*forms, *texts, *unseen]
    x = intent.features(every, [find_slots(text, known) for text in every], embedder.embed)
    weight, bias = fitted(x[: -len(unseen)], [*kinds, *labels], wanted.strength)
    logits = (x[-len(unseen) :] @ weight.T + bias).astype(np.float64)
    y, none = np.array([names.index(label) for label in right]), names.index(NONE)
    temperature = temperature_of(logits, y)
    odds = np.array([softmax(row / temperature) for row in logits])
    answers, sure = thresholds(odds, y, none)
    scores = scored(odds, y, none, answers, sure)
    print(json.dumps({"temperature": temperature, "answers": answers, "sure": sure, **scores}, indent=1))
    if wanted.look:
        for text, row, at in zip(unseen, odds, y, strict=True):
            if row.argmax() != at:
                print(f"{names[at]:16} {names[int(row.argmax())]:16} {row.max():.2f}  {text}")
        return
    _write(
        weight,
        bias,
        embedder,
        temperature,
        answers,
        sure,
        scores,
        f"fitted on {len(forms)} forms and {len(texts)} questions; thresholds and scores on {len(unseen)} others",
    )


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

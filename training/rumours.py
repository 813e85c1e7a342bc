"""Fit the head that tells rumours from reports: logistic regression over embedding and manner, `guardrails/rumours.py`.

`python -m training.rumours` reads rumours and honest texts of `corpus/rumours/`, the corpus's credible and doubtful
sources, and as credible the real notices and news of `../shared/text`. No text of a shipped scenario is among them.
`open` is the least probability that at most one real notice and three passages of news in a hundred reach, on 600 and
about 500 that are kept apart.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from finllm.guardrails.rumours import CARD, RumourCard, manner
from finllm.models.embedding import Embedder
from finllm.models.second_opinion import sentences
from training.corpus.build import build_corpus
from training.corpus.schema import SanityItem
from training.real_texts import SHARED, lines_of, needed

OWN = Path(__file__).resolve().parent / "corpus" / "rumours"
APART, LONGEST = 600, 700
C = 3.0
MANNER = 0.5
"""Weight of the standardised manner beside the embedding."""
SURE = 0.5
FOLDS = 5


class Row(NamedTuple):
    text: str
    rumour: bool
    weight: float
    kind: str


def shown(text: str) -> list[str]:
    """A text, and its sentences by threes where it has more."""
    parts = sentences(text)
    return [text, *(" ".join(parts[at : at + 3]) for at in range(0, len(parts), 2) if len(parts) > 3)]


def gathered() -> tuple[list[Row], dict[str, list[str]]]:
    """Training rows, and the clean texts of validation by kind."""
    needed()
    rows: list[Row] = []
    for name, weight in (("rumour", 1.0), ("honest", 3.0)):
        for at, row in enumerate(lines_of(OWN / f"{name}.jsonl")):
            rows += [Row(part, name == "rumour", weight, f"{name} {at}") for part in shown(row["text"])]
    for item in build_corpus().items["train"]:
        if isinstance(item, SanityItem) and item.labels.verdict in ("credible", "doubtful"):
            hand, rumour = item.author == "finllm", item.labels.verdict == "doubtful"
            weight = (1.0 if hand else 0.3) if rumour else (2.0 if hand else 0.5)
            rows.append(Row(item.inputs.text, rumour, weight, "corpus"))
    notices = [row["text"] for row in lines_of(SHARED / "notices/federal_register.jsonl.gz")]
    random.Random(0).shuffle(notices)
    rows += [Row(text, False, 0.5, "notice") for text in notices[2 * APART :]]
    headlines = lines_of(SHARED / "notices/agency_headlines_2026.jsonl.gz")
    rows += [Row(row["text"][:LONGEST], False, 0.5, "headline") for row in headlines]
    news = [(at, part[:LONGEST]) for at, row in enumerate(lines_of(SHARED / "news/wikinews_2019_2020.jsonl"))
            for part in [one for one in row["text"].split("\n") if len(one) > 150][:6]]  # fmt: skip
    rows += [Row(part, False, 1.0, "news") for at, part in news if at % 3]
    rows += [Row(row["text"], False, 1.0, "channels") for name in "abcdefg"
             for row in lines_of(OWN.parent / f"channels/{name}.jsonl")]  # fmt: skip
    return rows, {"notices": notices[:APART], "news": [part for at, part in news if not at % 3]}


def _unseen(rows: list[Row], x: Any, fit: Any) -> Iterator[float]:
    """The probability of each whole rumour by a head that has not seen it."""
    told = [int(row.kind.split()[1]) % FOLDS if row.kind.startswith("rumour ") else -1 for row in rows]
    firsts = {row.kind: at for at, row in reversed(list(enumerate(rows)))}
    for fold in range(FOLDS):
        head = fit(np.array([one != fold for one in told]))
        for kind, at in firsts.items():
            if kind.startswith("rumour ") and told[at] == fold:
                yield float(head.predict_proba(x[at : at + 1])[0, 1])


def main() -> None:
    from sklearn.linear_model import LogisticRegression

    rows, clean = gathered()
    embedder = Embedder()
    manners = np.array([manner(row.text) for row in rows])
    mean, spread = manners.mean(0), manners.std(0) + 1e-6
    x = np.hstack([embedder.embed([row.text for row in rows]), (manners - mean) / spread * MANNER])
    y, weight = np.array([row.rumour for row in rows]), np.array([row.weight for row in rows])

    def fit(of: Any) -> Any:
        return LogisticRegression(C=C, max_iter=3000).fit(x[of], y[of], sample_weight=weight[of])

    head = fit(np.ones(len(rows), dtype=bool))

    def odds_of(texts: list[str]) -> Any:
        manners = (np.array([manner(text) for text in texts]) - mean) / spread * MANNER
        return head.predict_proba(np.hstack([embedder.embed(texts), manners]))[:, 1]

    told = {kind: odds_of(texts) for kind, texts in clean.items()}
    least = round(max(float(np.quantile(told["notices"], 0.99)), float(np.quantile(told["news"], 0.97))) + 1e-3, 3)
    unseen = np.array(list(_unseen(rows, x, fit)))
    size = embedder.embed(["a"]).shape[1]
    by_hand = head.coef_[0][size:] * MANNER / spread
    scores = {f"validation.{kind}_doubted": float((odds >= least).mean()) for kind, odds in told.items()}
    scores |= {"validation.rumours_found": float((unseen >= least).mean()), "validation.rumours": float(len(unseen))}
    files = b"".join((OWN / f"{name}.jsonl").read_bytes() for name in ("rumour", "honest"))
    CARD.write_text(RumourCard(
        embedding_sha256=embedder.digest, corpus_sha256=hashlib.sha256(files).hexdigest(),
        weights=tuple(round(float(one), 5) for one in (*head.coef_[0][:size], *by_hand)),
        bias=round(float(head.intercept_[0] - by_hand @ mean), 5), open=least, sure=SURE,
        scores={name: round(value, 4) for name, value in scores.items()},
        data="own rumours and honest texts, the corpus's sources; as credible Federal Register notices and agency "
             "headlines (US government works), Wikinews 2019-2020 (CC BY 2.5), texts of the channel corpus",
        limits=("English.", "It knows how rumours are told, not what is true: a sober lie reads as a report."),
    ).model_dump_json(indent=1) + "\n", encoding="utf-8")  # fmt: skip
    for name, value in scores.items():
        sys.stdout.write(f"{name} {value:.4f}\n")
    sys.stdout.write(f"open {least}\n")


if __name__ == "__main__":
    main()

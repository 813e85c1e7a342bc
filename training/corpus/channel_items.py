"""Texts labelled with the channels that they open: our own, kept whole, and the labels alone of real ones."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from finllm.tools.channels import State
from finllm.tools.data.factors import FactorId

OWN = Path(__file__).with_name("channels")
LABELS = Path(__file__).with_name("labels")
REAL = Path(__file__).resolve().parents[3] / "shared" / "text"
"""Where the real texts lie, beside the checkout; they are read there and copied nowhere."""
HELD_OUT = ("second", "third")
"""The authors whose items are never trained on: test sets of other hands."""

Sign = Literal["+", "-", "0"]
Kind = Literal[
    "war", "blockade", "policy", "run", "default", "pandemic", "outage", "tariffs", "ceasefire", "recession", "data",
    "election", "disaster", "accounting", "cyber", "regulation", "strike", "property", "technology", "supply",
    "currency", "fiscal", "none",
]  # fmt: skip


class _Labels(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    channels: dict[str, State] | None = Field(default=None, max_length=3)
    signs: dict[FactorId, Sign] = {}
    kind: Kind | None = None
    severity: Literal["low", "medium", "high", "extreme"] | None = None
    stance: Literal["hawkish", "dovish", "neutral"] | None = None


class OwnItem(_Labels):
    """A text written for this project, and what it opens (`channels` is None where only signs were labelled)."""

    author: str
    manner: str
    text: str = Field(min_length=4)
    region: Literal["us", "europe", "asia", "mideast", "global"] | None = None


class RealLabels(_Labels):
    """What somebody says that a real text opens. `who` labelled it, and `when`."""

    who: str
    when: str


def own_items(*, held_out: str | None = None) -> list[OwnItem]:
    """Our own texts in their authors' order: those to train on, or those of an author who is never trained on."""
    names = [OWN / f"{held_out}.jsonl"] if held_out else \
        sorted(path for path in OWN.glob("*.jsonl") if path.stem not in HELD_OUT)  # fmt: skip
    return [OwnItem.model_validate_json(line) for path in names for line in path.read_text("utf-8").splitlines()]


def real_labels() -> list[RealLabels]:
    """Every label of a real text; of a text that was labelled twice, both."""
    found = sorted(LABELS.glob("*.jsonl"))
    return [RealLabels.model_validate_json(line) for path in found for line in path.read_text("utf-8").splitlines()]


@cache
def real_texts() -> Mapping[str, str]:
    """The real texts by id, as the labellers saw them; empty where they are not at hand."""
    return dict(_texts()) if REAL.is_dir() else {}


def _texts() -> Iterator[tuple[str, str]]:
    for kind in ("statement", "minutes", "speech", "press_conference", "beige_book"):
        for row in _rows(REAL / "fed" / f"{kind}.jsonl.gz"):
            yield f"fed/{kind}/{row['id']}/{row['n']}", row["text"]
    for row in _rows(REAL / "notices" / "federal_register.jsonl.gz"):
        yield f"notices/federal_register/{row['doc']}", f"{row['title']}. {row['text'][:500]}"
    for row in _rows(REAL / "notices" / "agency_headlines_2026.jsonl.gz"):
        yield f"notices/agency_headlines/{_short(row['url'])}", f"{row['title']}. {row['text'][:350]}"
    for row in _rows(REAL / "news" / "wikinews_2019_2020.jsonl"):
        said = row["text"][:450].replace("\n", " ")
        yield f"news/wikinews/{_short(row['url'])}", f"{row['title']}. {said}"


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _short(url: str) -> str:
    return sha256(url.encode()).hexdigest()[:12]

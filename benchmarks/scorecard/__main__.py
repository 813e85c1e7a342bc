"""The scorecard: every agent on the test split, Fed sentences and injections, beside rivals; fills docs/scorecard.md.

`python -m benchmarks.scorecard` asks the default model, with its adapter where there is one. What is missing is named.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.scorecard.columns import Case, Column, ask, fires, rival_columns, sampled, second_column, with_second
from benchmarks.scorecard.outside import (
    EVALUATION,
    Missing,
    corpus_stance,
    fomc_of,
    fomc_rivals,
    fomc_rows,
    injection_row,
    injection_sets,
    injections_of,
)
from benchmarks.scorecard.rivals import Remembering
from benchmarks.scorecard.tables import calibration, costs, markdown, slices, table
from finllm.errors import BackendError
from finllm.models.cards import AdapterCard, adapter_for
from finllm.models.ladder import PRUNED, ensure_rung
from finllm.models.lora import Adapter
from finllm.models.registry import default_source
from finllm.models.second_opinion import SecondOpinion
from finllm.scheduler.backends import Backend
from finllm.settings import Settings, load_settings
from training.corpus.build import build_corpus, clean_texts
from training.items import question
from training.kept import open_kept

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "scorecard.md"
SAMPLE = 60
"""Items of each task on which the other rungs, and the model without its adapter, are compared."""
FOMC_SAMPLE = 300
CLEAN_SAMPLE = 2000
CALLED = ("called injected", "clean texts of the corpus", "injected texts of the corpus", "indirect attacks in news")


@dataclass(frozen=True)
class Contender:
    name: str
    precision: str
    adapter: Adapter | None
    card: AdapterCard | None


def contenders(settings: Settings, missing: Missing) -> list[Contender]:
    """The model that runs use first; then its other rungs and the model without its adapter."""
    edge, deep = settings.edge_precision, settings.deep_precision
    found: list[Contender] = []
    for rung in dict.fromkeys((edge, "Q8_0", deep, PRUNED)):
        adapter, card = adapter_for(default_source(settings), settings, rung)
        if adapter is None or (rung == PRUNED and adapter.layers is None):
            missing.lines.append(f"no adapter for this model at {rung}")
            continue
        if card is None:
            missing.lines.append(f"no card beside {adapter.path.name}: it is not calibrated")
        found.append(Contender(f"adapter {rung}", rung, adapter, card))
    plain = [Contender(f"zero-shot {rung}", rung, None, None) for rung in (edge, deep) if rung != PRUNED]
    return [*found, *plain[:1]] if found else plain


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scorecard", description=__doc__)
    parser.add_argument("--most", type=int, help="ask at most so many items of each task and so many Fed sentences")
    parser.add_argument("--keep", type=Path, help="a folder for the models' answers, so that they are asked for once")
    parser.add_argument("--out", type=Path, default=PAGE)
    arguments = parser.parse_args(argv)
    started = time.monotonic()

    def say(line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - started:6.0f} s  {line}\n")

    text = scorecard(load_settings().settings, say, arguments.most, arguments.keep)
    text += (
        f"\nTaken on {dt.date.today().isoformat()} in {time.monotonic() - started:.0f} s on {os.cpu_count()} cores.\n"  # noqa: DTZ011
    )
    arguments.out.write_text(text, encoding="utf-8")
    print(text)


@dataclass
class Page:
    """What is measured, as it comes: columns over all cases and over the `few`, Fed sentences, injections, gaps."""

    cases: list[Case]
    few: list[Case]
    columns: list[Column]
    compared: list[Column] = field(default_factory=list)
    fomc: dict[str, list[str]] = field(default_factory=dict)
    injection: list[list[str]] = field(default_factory=list)


def scorecard(settings: Settings, say: Callable[[str], None], most: int | None = None, keep: Path | None = None) -> str:
    """The page's text. `most` bounds everything that a model is asked; `keep`: a folder for its answers."""
    missing, embedder, corpus = Missing(), Remembering(), build_corpus()
    cases = [Case(item, question(item)) for item in corpus.items["test"]]
    cases = sampled(cases, most) if most else cases
    say("rivals")
    page = Page(cases, sampled(cases, min(SAMPLE, most or SAMPLE)),
                rival_columns(cases, [question(item) for item in corpus.items["train"]], embedder))  # fmt: skip
    second: SecondOpinion | None = SecondOpinion(embedder)
    try:
        page.columns.append(second_column(cases, second))
    except BackendError as error:
        second = None
        missing.lines.append(f"no second opinion: {error.message}")
    if second is not None and not second.card.pool:
        missing.lines.append(
            "no fitted weights of the second opinion, so it counts half: run 'python -m training.pool'"
        )
    if (EVALUATION / "fomc").is_dir():
        page.fomc |= fomc_rivals(fomc_rows(most), second, corpus_stance(corpus.items["train"]), embedder)
    else:
        missing.lines.append("no Fed sentences: ../shared/eval/fomc is not there")
    sets = injection_sets(clean_texts(corpus.items["test"]), cases, missing)
    page.injection.append(injection_row("rules", {key: list(map(fires, texts)) for key, texts in sets.items()}))
    source = default_source(settings)
    for at, one in enumerate(contenders(settings, missing)):
        rung = ensure_rung(source, one.precision, settings, adapter=one.adapter)
        card = one.card
        with open_kept(source, rung, settings, keep) as backend:
            heard = second if at == 0 else None
            if at == 0:
                _first(one.name, page, backend, heard, say, card=card)
                page.injection += injections_of(sets, most or CLEAN_SAMPLE, say)
            else:
                page.compared.append(ask(one.name, page.few, backend, say, card=card))
            if page.fomc:
                rows = fomc_rows(most or (None if at == 0 else FOMC_SAMPLE))
                say(f"{one.name}: {len(rows)} Fed sentences")
                page.fomc |= fomc_of(one.name, rows, backend, heard, card=card)
    head = f"Written by `make eval`, no figure by hand. Corpus {corpus.digest()[:12]}, model {source.name}."
    return _text(page, head, missing)


def _first(
    name: str,
    page: Page,
    backend: Backend,
    second: SecondOpinion | None,
    say: Callable[[str], None],
    *,
    card: AdapterCard | None,
) -> None:  # fmt: skip
    """The model that runs use, on every case; and its answers to the few on which the others are compared."""
    told = ask(name, page.cases, backend, say, card=card)
    if second is not None:
        alone = page.columns[-1]
        opinions = second.card
        page.columns += [
            told,
            with_second(f"{name} + second", page.cases, told, alone, opinions.weight_of),
        ]
    else:
        page.columns.append(told)
    keep = {case.item.id for case in page.few}
    places = [at for at, case in enumerate(page.cases) if case.item.id in keep]
    page.few = [page.cases[at] for at in places]
    share = told.seconds * len(places) / len(page.cases)
    page.compared.append(Column(name, [told.said[at] for at in places], [told.odds[at] for at in places], share))


def _text(page: Page, head: str, missing: Missing) -> str:
    heads = ["contender", "n", "weighted F1", "accuracy", "macro-F1"]
    fed = markdown(heads, [[name, *cells] for name, cells in page.fomc.items()]) if page.fomc else ["Not measured."]
    return "\n".join([
        "# Scorecard", "", head, *(f"- Missing: {line}" for line in missing.lines), "",
        "## Each agent on the corpus's unseen events", "", *table(page.cases, page.columns), "",
        "## The same items at other rungs and without the adapter", "", *table(page.few, page.compared), "",
        "## Fed sentences of 1996–2019 (none of them trained on)", "", *fed, "",
        "## Hard cases: stance, directions and injection together", "", *slices(page.cases, page.columns), "",
        "## Injection: found, and false alarms", "", *markdown(CALLED, page.injection), "",
        "## Calibration", "", *calibration(page.cases, page.columns), "",
        "## Cost", "", *costs(page.compared), "",
    ])  # fmt: skip


if __name__ == "__main__":
    main()

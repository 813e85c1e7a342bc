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
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scorecard_columns import Case, Column, ask, fires, rival_columns, sampled, second_column, with_second
from benchmarks.scorecard_outside import (
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
from benchmarks.scorecard_rivals import Remembering
from benchmarks.scorecard_tables import calibration, costs, markdown, slices, table
from finllm.errors import BackendError
from finllm.graphs.calibrate import open_llama
from finllm.models.ladder import ensure_rung
from finllm.models.lora import Adapter, open_adapter
from finllm.models.registry import default_source
from finllm.models.second_opinion import SecondOpinion
from finllm.settings import Settings, load_settings
from training.corpus.build import build_corpus, clean_texts
from training.items import question

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "scorecard.md"
ADAPTERS = ROOT / "models" / "adapters"
SAMPLE = 60
"""Items of each task on which the other rungs, and the model without its adapter, are compared."""
FOMC_SAMPLE = 300
CLEAN_SAMPLE = 400
CALLED = ("called injected", "clean texts of the corpus", "injected texts of the corpus", "indirect attacks in news")


@dataclass(frozen=True)
class Contender:
    name: str
    precision: str
    adapter: Adapter | None


def contenders(settings: Settings, missing: Missing) -> list[Contender]:
    """The model that runs use first; then its other rungs and the model without its adapter."""
    files = sorted(ADAPTERS.glob("*.gguf"))
    edge, deep = settings.edge_precision, settings.deep_precision
    if not files:
        missing.lines.append(f"no adapter in {ADAPTERS.relative_to(ROOT)}: the model is asked zero-shot")
        return [Contender(f"zero-shot {edge}", edge, None), Contender(f"zero-shot {deep}", deep, None)]
    adapter = open_adapter(files[0], settings)
    rungs = [edge, *(one for one in ("Q8_0", deep) if one != edge)]
    return [
        *(Contender(f"adapter {rung}", rung, adapter) for rung in rungs),
        Contender(f"zero-shot {edge}", edge, None),
    ]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scorecard", description=__doc__)
    parser.add_argument("--most", type=int, help="ask at most so many items of each task and so many Fed sentences")
    parser.add_argument("--out", type=Path, default=PAGE)
    arguments = parser.parse_args(argv)
    started = time.monotonic()

    def say(line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - started:6.0f} s  {line}\n")

    text = scorecard(load_settings().settings, say, arguments.most)
    text += (
        f"\nTaken on {dt.date.today().isoformat()} in {time.monotonic() - started:.0f} s on {os.cpu_count()} cores.\n"  # noqa: DTZ011
    )
    arguments.out.write_text(text, encoding="utf-8")
    print(text)


def scorecard(settings: Settings, say: Callable[[str], None], most: int | None = None) -> str:
    """The page. `most` bounds everything that a model is asked."""
    missing, embedder = Missing(), Remembering()
    corpus = build_corpus()
    cases = [Case(item, question(item)) for item in corpus.items["test"]]
    cases = sampled(cases, most) if most else cases
    few = sampled(cases, min(SAMPLE, most or SAMPLE))
    say("rivals")
    rivals = rival_columns(cases, [question(item) for item in corpus.items["train"]], embedder)
    second = SecondOpinion(embedder)
    alone: Column | None = None
    try:
        alone = second_column(cases, second)
    except BackendError as error:
        missing.lines.append(f"no second opinion: {error.message}")
    sentences = (EVALUATION / "fomc").is_dir()
    if not sentences:
        missing.lines.append("no Fed sentences: ../shared/eval/fomc is not there")
    fomc: dict[str, list[str]] = {}
    if sentences:
        fomc |= fomc_rivals(fomc_rows(most), second if alone else None, corpus_stance(corpus.items["train"]), embedder)
    sets = injection_sets(clean_texts(corpus.items["test"]), cases, missing)
    injection = [injection_row("rules", {key: [fires(text) for text in texts] for key, texts in sets.items()})]

    columns = [*rivals, *([alone] if alone else [])]
    compared: list[Column] = []
    asked: list[Column] = []
    source = default_source(settings)
    for at, one in enumerate(contenders(settings, missing)):
        rung = ensure_rung(source, one.precision, settings, adapter=one.adapter)
        divide = one.adapter is None  # an adapter was trained without: see `ask_all`
        with open_llama(source, rung, settings) as backend:
            if at == 0:
                main_column = ask(one.name, cases, backend, say, divide=divide)
                columns.append(main_column)
                asked.append(main_column)
                if alone:
                    pool = second.card.pool
                    columns.append(with_second(f"{one.name} + second", cases, main_column, alone, pool))
                keep = {id(case.item) for case in few}
                picked = [place for place, case in enumerate(cases) if id(case.item) in keep]
                few = [cases[place] for place in picked]
                compared.append(Column(one.name, [main_column.said[p] for p in picked],
                                       [main_column.odds[p] for p in picked]))  # fmt: skip
            else:
                compared.append(ask(one.name, few, backend, say, divide=divide))
            if sentences:
                rows = fomc_rows(most or (None if at == 0 else FOMC_SAMPLE))
                say(f"{one.name}: {len(rows)} Fed sentences")
                heard = second if alone and at == 0 else None
                fomc |= fomc_of(one.name, rows, backend, heard, divide=divide)
            if at == 0:
                injection += injections_of(
                    one.name, backend, second if alone else None, sets, most or CLEAN_SAMPLE, say, divide=divide
                )
    if alone and not second.card.pool:
        missing.lines.append("no pool weights in the second opinion's card: run 'python -m training.pool'")
    heads = ["contender", "n", "weighted F1", "accuracy", "macro-F1"]
    return "\n".join([
        "# Scorecard", "",
        f"Written by `make eval`, no figure by hand. Corpus {corpus.digest()[:12]}, model {source.name}.",
        *(f"- Missing: {line}" for line in missing.lines), "",
        "## Each agent on the corpus's unseen events", "", *table(cases, columns), "",
        "## The same items at other rungs and without the adapter", "", *table(few, compared), "",
        "## Fed sentences of 1996–2019 (none of them trained on)", "",
        *(markdown(heads, [[name, *cells] for name, cells in fomc.items()]) if fomc else ["Not measured."]), "",
        "## Hard cases: stance, directions and injection together", "", *slices(cases, columns), "",
        "## Injection: found, and false alarms", "", *markdown(CALLED, injection), "",
        "## Calibration", "", *calibration(cases, columns), "",
        "## Cost", "", *costs([*asked, *compared[1:]]), "",
    ])  # fmt: skip


if __name__ == "__main__":
    main()

"""The broker beside every rule that it replaces, in one run: deadlines, quality, energy, fairness, faults, terms."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context

from benchmarks.broker.carbon import carbon
from benchmarks.broker.cells import SIZES, measured, tuned
from benchmarks.broker.energy import energies
from benchmarks.broker.escalation import escalation
from benchmarks.broker.faults import live_faults
from benchmarks.broker.live import validity
from benchmarks.broker.occasions import occasions
from benchmarks.broker.quality import gaps, supposed
from benchmarks.broker.report import (
    Section,
    goodput,
    joules,
    plot,
    quality,
    simulator,
    speed,
    struck,
    terms,
    windows,
)
from benchmarks.broker.speed import speeds
from benchmarks.broker.terms import ablation, diversity, faults, foresight
from benchmarks.broker.windows import against_optimum
from benchmarks.page import PAGE, write_section
from finllm.evaluation.calibrate import calibrate
from finllm.events import EventBus
from finllm.settings import load_settings

KEPT = PAGE.parent.parent / "build" / "broker"
"""What each step found, until it is measured again."""
SUPPOSED = ((0.70, 0.85, 1.0), (0.70, 0.85, 1.5), (0.60, 0.80, 1.5))
"""Quality of edge and deep, and how well confidence tells right from wrong, where the measured gap shows nothing."""


def main() -> int:
    """Measure all steps, or those that are named, and write the page's section. Exit code 1 for a missed bar."""
    started = time.monotonic()
    settings = load_settings().settings
    tiers = (settings.edge_precision, settings.deep_precision)
    found = gaps([one.calibration for one in calibrate(settings, EventBus(), tiers)], *tiers)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        steps: Mapping[str, Callable[[], Section]] = {
            "quality": lambda: quality(found, escalation(settings), [supposed(*one, seed=0) for one in SUPPOSED]),
            "decisions": lambda: speed(speeds()),
            "cells": lambda: goodput(list(measured(pool, tuned(pool, SIZES), list(SIZES)))),
            "windows": lambda: windows(against_optimum(pool)),
            "joules": lambda: joules(energies()),
            "terms": lambda: terms(ablation(pool), occasions(pool), foresight(pool), diversity(pool), carbon()),
            "faults": lambda: struck(faults(), live_faults()),
            "simulator": lambda: simulator(validity(settings)),
        }  # fmt: skip
        asked = sys.argv[1:] or list(steps)
        if unknown := [name for name in asked if name not in steps]:
            sys.exit(f"there is no step {unknown[0]!r}; one of {', '.join(steps)}")
        for name in asked:
            print(f"{time.monotonic() - started:6.0f} s  {name}", file=sys.stderr, flush=True)
            keep(name, steps[name]())
            write_page(steps)
    kept = write_page(steps)
    print("\n\n".join(one.text for one in kept.values()))
    print(f"\n{', '.join(asked)}: {(time.monotonic() - started) / 60:.0f} minutes.")
    if "cells" in asked:
        plot(list(kept.values()))
    return 0 if all(section.met for section in kept.values()) else 1


def keep(name: str, section: Section) -> None:
    """Keep a step's part of the page, with the commit that it was measured at."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=PAGE.parent, capture_output=True, text=True,
                            check=False).stdout.strip() or "no commit"  # fmt: skip
    KEPT.mkdir(parents=True, exist_ok=True)
    told = asdict(section) | {"text": f"{section.text}\n\n*{name}, at {commit}*"}
    (KEPT / f"{name}.json").write_text(json.dumps(told), encoding="utf-8")


def write_page(steps: Iterable[str]) -> dict[str, Section]:
    """The page's section from all steps that were ever measured here, and these steps."""
    paths = {name: KEPT / f"{name}.json" for name in steps}
    found = {name: Section(**json.loads(path.read_text("utf-8"))) for name, path in paths.items() if path.exists()}
    write_section("The broker", "make bench-broker", "\n\n".join(one.text for one in found.values()))
    return found


if __name__ == "__main__":
    sys.exit(main())

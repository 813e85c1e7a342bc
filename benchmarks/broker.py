"""The broker beside every rule that it replaces, in one run: deadlines, quality, energy, fairness, faults, terms."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks.broker_carbon import carbon
from benchmarks.broker_cells import SIZES, measured, tuned
from benchmarks.broker_energy import energies
from benchmarks.broker_faults import live_faults
from benchmarks.broker_live import validity
from benchmarks.broker_quality import gaps, supposed
from benchmarks.broker_report import Section, goodput, others, plot, quality, speed, windows
from benchmarks.broker_speed import speeds
from benchmarks.broker_terms import ablation, diversity, faults, foresight
from benchmarks.broker_windows import against_optimum
from benchmarks.page import write_section
from finllm.events import EventBus
from finllm.graphs.calibrate import calibrate
from finllm.settings import load_settings

SUPPOSED = ((0.70, 0.85, 1.0), (0.70, 0.85, 1.5), (0.60, 0.80, 1.5))
"""Quality of edge and deep, and how well confidence tells right from wrong, where the measured gap shows nothing."""


def main() -> int:
    """Measure all, or the steps that are named, print it and write the page's section. Exit code 1 for a missed bar."""
    started = time.monotonic()
    settings = load_settings().settings
    tiers = (settings.edge_precision, settings.deep_precision)
    found = gaps([one.calibration for one in calibrate(settings, EventBus(), tiers)], *tiers)
    sections: list[Section] = []
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        steps: Mapping[str, Callable[[], Section]] = {
            "quality": lambda: quality(found, [supposed(*one, seed=0) for one in SUPPOSED]),
            "decisions": lambda: speed(speeds()),
            "cells": lambda: goodput(list(measured(pool, tuned(pool, SIZES), list(SIZES)))),
            "windows": lambda: windows(against_optimum(pool)),
            "others": lambda: others(
                energies(), ablation(pool), foresight(pool), diversity(pool), carbon(), faults(), live_faults(),
                validity(settings)),
        }  # fmt: skip
        asked = sys.argv[1:] or list(steps)
        if unknown := [name for name in asked if name not in steps]:
            sys.exit(f"there is no step {unknown[0]!r}; one of {', '.join(steps)}")
        for name, step in steps.items():
            if name not in asked:
                continue
            print(f"{time.monotonic() - started:6.0f} s  {name}", file=sys.stderr, flush=True)
            sections.append(step())
            write_section("The broker", "make bench-broker", "\n\n".join(one.text for one in sections))
    minutes = (time.monotonic() - started) / 60
    text = "\n\n".join([*(one.text for one in sections), f"{', '.join(asked)}: {minutes:.0f} minutes in all."])
    print(text)
    if "cells" in asked:
        plot(sections)
    write_section("The broker", "make bench-broker", text)
    return 0 if all(section.met for section in sections) else 1


if __name__ == "__main__":
    sys.exit(main())

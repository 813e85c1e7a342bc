"""Write the card of an adapter: what it was trained on, what it scores at each rung, how to read its probabilities."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from finllm.agents.agent import prompt_version
from finllm.agents.roles import judgement_fields
from finllm.models.files import sha256_of_file, write_atomically
from finllm.models.ladder import ensure_rung
from finllm.models.lora import open_adapter
from finllm.settings import Settings
from training.calibrate import Scaling, calibrate
from training.data import Data
from training.export import export
from training.items import TRAINED
from training.model import read_weights
from training.packing import pooled
from training.score import RUNGS, Answer, answers, fomc, summary
from training.train import STATE, Config

NAME = "smollm2-135m-analyst"
LIMITS = (
    "Trained on texts written for this project in English, by one author; flatter than people's writing.",
    "Reads a sentence to a short paragraph at a time; long stories were trained on only as joined short ones.",
    "Fields that a text does not decide were not trained on: their answers there mean nothing.",
    "market-signal and stress-tester were not trained.",
)


def export_run(run: Path, data: Data, out: Path) -> tuple[Config, int]:
    """Write the adapter of a training run to `out`; its settings and steps."""
    config = Config(**json.loads((run / "config.json").read_text(encoding="utf-8")))
    state = torch.load(run / STATE, map_location="cpu", weights_only=True)
    export(state["model"], read_weights(data.weights)[0], config.alpha, NAME, out)
    return config, int(state["step"])


def card(
    data: Data, path: Path, config: Config, steps: int, scored: dict[str, dict[str, list[Answer]]]
) -> dict[str, Any]:
    """The card as JSON. `scored`: answers by rung and set (`validation`, `test`, `fomc` where it was scored)."""
    tables = calibrate(scored["Q4_0"]["validation"], scored["Q4_0"]["test"])
    roles = [agent.role for agent in TRAINED]
    scalings: dict[str, Any] = {}
    thresholds: dict[str, float] = {}
    for name in judgement_fields():
        role, _, field = name.partition(".")
        row = tables.get(f"{role}.{pooled(field)}")
        if role in roles and row is not None:
            scaling = row["scaling"]
            assert isinstance(scaling, Scaling)
            scalings[name] = {"temperature": round(scaling.temperature, 4),
                              "bias": {v: round(b, 4) for v, b in scaling.bias.items()}}  # fmt: skip
            thresholds[name] = round(float(str(row["threshold"])), 4)
    return {
        "name": NAME,
        "base_sha256": data.source.sha256,
        "adapter_sha256": sha256_of_file(path),
        "corpus_digest": data.corpus.digest(),
        "splits": {split: len(items) for split, items in data.corpus.items.items()},
        "training": asdict(config) | {"steps": steps},
        "prompts": {agent.role: prompt_version(agent) for agent in TRAINED},
        "scores": {rung: {name: summary(of) for name, of in sets.items()} for rung, sets in scored.items()},
        "calibration_error": {
            name: {k: row[k] for k in ("before", "after", "tested") if k in row} for name, row in tables.items()
        },
        "calibration": scalings,
        "thresholds": thresholds,
        "limits": list(LIMITS),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """`python -m training.card --run DIR`: export, score at every rung, calibrate, write adapter and card."""
    parser = argparse.ArgumentParser(prog="python -m training.card", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the folder of a finished training")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "models" / "adapters")
    parser.add_argument("--rungs", nargs="+", default=list(RUNGS), choices=RUNGS)
    parser.add_argument("--fomc", type=Path, help="the CSV file of labelled sentences, for evaluation")
    args = parser.parse_args(argv)
    settings = Settings()
    data = Data(settings)
    path: Path = args.out / f"{NAME}.gguf"
    config, steps = export_run(args.run, data, path)
    adapter = open_adapter(path, settings)
    sets = {"validation": data.questions("validation"), "test": data.questions("test")}
    if args.fomc is not None:
        sets["fomc"] = fomc(args.fomc)
    scored = {}
    for rung in args.rungs:
        file = ensure_rung(data.source, rung, settings, adapter=adapter).path
        scored[rung] = {name: answers(file, of) for name, of in sets.items()}
    written = card(data, path, config, steps, scored)
    write_atomically(path.with_suffix(".json"), json.dumps(written, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

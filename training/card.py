"""Write the card of an adapter: what it was trained on, what it scores at each rung, how to read its probabilities."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from finllm.agents.agent import prompt_version
from finllm.agents.roles import judgement_fields
from finllm.files import sha256_of_file, write_atomically
from finllm.models.cards import AdapterCard
from finllm.models.ladder import PRUNED, ensure_rung
from finllm.models.lora import open_adapter
from finllm.settings import load_settings
from training import attacks, forward
from training.calibrate import AS_SCORED, Scaling, calibrate, calibrated, calibration_error
from training.config import CONFIG, Config, config_of
from training.data import Data
from training.export import export
from training.items import TRAINED, Question
from training.model import read_weights, shallower
from training.packing import pooled
from training.score import RUNGS, Answer, Kept, answers, fomc, summary
from training.train import STATE

NAME = "smollm2-135m-analyst"
STEERED = f"{attacks.SANITY_CHECKER.role}.{attacks.FIELD}"
FIELDS_SCORED = ("validation", "test", "fomc")
"""Sets on which each field has its figures; the others are for attacks only."""
LIMITS = (
    "Trained on texts written for this project in English, by one author; flatter than people's writing.",
    "Reads a sentence to a short paragraph at a time; long stories were trained on only as joined short ones.",
    "Fields that a text does not decide were not trained on: their answers there mean nothing.",
    "market-signal and stress-tester were not trained.",
)
Sets = Mapping[str, Sequence[Question]]
Scored = dict[str, dict[str, list[Answer]]]


def export_run(run: Path, data: Data, out: Path) -> tuple[Config, int]:
    """Write the adapter of a training run to `out`; its settings and steps."""
    config = config_of(json.loads((run / CONFIG).read_text(encoding="utf-8")))
    state = torch.load(run / STATE, map_location="cpu", weights_only=True)
    shape, tensors = read_weights(data.weights)
    if config.layers:
        shape, _tensors = shallower(shape, tensors, config.layers)
    export(state["model"], shape, config.alpha, out.stem, out, config.layers)
    return config, int(state["step"])


def calibrated_at(config: Config) -> str:
    """The rung at which probabilities are calibrated: the edge's."""
    return PRUNED if config.layers else "Q4_0"


def sets_of(data: Data, fed: Path | None, planted: Path | None, *, sources: bool) -> dict[str, Sequence[Question]]:
    """What is scored, by name. `fed`: labelled sentences (CSV); `planted`: attacks of others (JSON); both unseen.

    `sources`: also each text by itself before the sanity-checker, from which the threshold for an attack is taken.
    """
    sets: dict[str, Sequence[Question]] = {"validation": data.questions("validation"), "test": data.questions("test")}
    if fed is not None:
        sets["fomc"] = fomc(fed)
    if not sources:
        return sets
    sets["sources-validation"] = attacks.clean_and_steering(data.corpus.items["validation"])
    sets["sources-test"] = attacks.clean_and_steering(data.corpus.items["test"])
    if planted is not None:
        sets["planted"] = attacks.planted(planted, data.corpus.items["test"])
    return sets


def score(
    data: Data, adapter: Path, run: Path, rungs: Sequence[str], sets: Sets, by: str, until: Callable[[], bool]
) -> Scored | None:
    """Answers by rung and set; kept in the run's folder, so that None (`until` said stop) can be gone on with.

    `by`: the engine, or torch, which is much quicker on a GPU. Sources are judged at the first rung only.
    """
    settings = load_settings().settings
    scored: Scored = {}
    for rung in rungs:
        file = ensure_rung(data.source, rung, settings, adapter=open_adapter(adapter, settings)).path
        of = scored[rung] = {}
        for name, questions in sets.items():
            if rung != rungs[0] and name not in FIELDS_SCORED:
                continue
            kept = Kept(run / "answers", f"{name}-{rung}-{by}", questions)
            found = (
                answers(file, questions, kept, until)
                if by == "engine"
                else forward.answers(file, data, questions, kept, until)
            )
            if found is None:
                return None
            of[name] = found
    return scored


def card(data: Data, path: Path, config: Config, steps: int, scored: Scored, sets: Sets) -> dict[str, Any]:
    """The card as JSON, with the figures as an agent will see them: calibrated on validation, at the edge's rung."""
    fitted_on = scored[calibrated_at(config)]
    tables = calibrate(fitted_on["validation"], fitted_on["test"])
    scalings, thresholds = _by_field(tables)
    steered = tables[STEERED]["scaling"]
    assert isinstance(steered, Scaling)
    at = attacks.threshold(fitted_on.get("sources-validation", ()), steered)
    if "sources-validation" in fitted_on:
        thresholds[f"{STEERED}={attacks.VALUE}"] = round(at, 4)
    return {
        "name": path.stem,
        "base_sha256": data.source.sha256,
        "adapter_sha256": sha256_of_file(path),
        "corpus_digest": data.corpus.digest(),
        "splits": {split: len(items) for split, items in data.corpus.items.items()},
        "training": asdict(config) | {"steps": steps},
        "prompts": {agent.role: prompt_version(agent) for agent in TRAINED},
        "scores": {
            rung: {name: summary(calibrated(of, tables)) for name, of in by_set.items() if name in FIELDS_SCORED}
            for rung, by_set in scored.items()
        },
        "scores_before_calibration": {name: summary(fitted_on[name]) for name in ("test", "fomc") if name in fitted_on},
        "injection": {
            name: attacks.found(fitted_on[name], sets[name], steered, at)
            for name in ("sources-validation", "sources-test", "planted") if name in fitted_on
        },
        "calibration_error": {
            "all": {"before": calibration_error(_decided(fitted_on["test"]), AS_SCORED),
                    "after": calibration_error(_decided(calibrated(fitted_on["test"], tables)), AS_SCORED)},
            **{name: {k: row[k] for k in ("before", "after", "tested") if k in row} for name, row in tables.items()},
        },
        "calibration": scalings,
        "thresholds": thresholds,
        "limits": list(LIMITS),
        **({"layers": list(config.layers)} if config.layers else {}),
    }  # fmt: skip


def _decided(of: Sequence[Answer]) -> list[Answer]:
    return [a for a in of if len(a.scores) > 1]


def _by_field(tables: Mapping[str, Mapping[str, object]]) -> tuple[dict[str, Any], dict[str, float]]:
    """Scalings and thresholds of every field of the trained roles; those of one kind share theirs."""
    roles = {agent.role for agent in TRAINED}
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
    return scalings, thresholds


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(of) for key, of in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def main(argv: Sequence[str] | None = None) -> None:
    """`python -m training.card --run DIR`: export, score at every rung, calibrate, write adapter and card."""
    parser = argparse.ArgumentParser(prog="python -m training.card", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the folder of a finished training")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "models" / "adapters")
    parser.add_argument("--rungs", nargs="+", default=list(RUNGS), choices=RUNGS, help="of a run of all layers")
    parser.add_argument("--no-sources", action="store_true", help="take no threshold for attacks")
    parser.add_argument("--fomc", type=Path, help="the CSV file of labelled sentences, for evaluation")
    parser.add_argument("--planted", type=Path, help="the JSON file of others' attacks, for evaluation")
    parser.add_argument("--by", choices=["engine", "torch"], default="engine", help="what scores; see training.forward")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many; call again to go on")
    args = parser.parse_args(argv)
    started = time.monotonic()
    data = Data()
    pruned = bool(config_of(json.loads((args.run / CONFIG).read_text(encoding="utf-8"))).layers)
    path: Path = args.out / f"{NAME}{'-pruned' if pruned else ''}.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    config, steps = export_run(args.run, data, path)
    sets = sets_of(data, args.fomc, args.planted, sources=not args.no_sources)
    first = calibrated_at(config)
    rungs = [first, *(rung for rung in RUNGS if rung in args.rungs and rung != first and not pruned)]
    scored = score(data, path, args.run, rungs, sets, args.by, lambda: time.monotonic() - started > 60 * args.minutes)
    if scored is None:
        sys.exit("not all is scored yet: call again to go on")
    told = card(data, path, config, steps, scored, sets) | {"scored_by": args.by}
    written = json.dumps(_rounded(told), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    AdapterCard.model_validate_json(written)
    write_atomically(path.with_suffix(".json"), written)


if __name__ == "__main__":
    main()

"""Adapters with their cards: what a LoRA file was trained for, on which prompts, and how its scores are calibrated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finllm.errors import InputError
from finllm.models.ladder import PRUNED
from finllm.models.lora import Adapter, open_adapter
from finllm.models.source import ModelSource
from finllm.settings import Settings

SHIPPED = Path(__file__).resolve().parent / "adapters"
"""Folder of the adapters that come with finllm: `NAME.gguf` beside `NAME.json`."""
AUTO, NONE = "auto", "none"
T = TypeVar("T")


class FieldCalibration(BaseModel):
    """Probability = softmax(score / `temperature` − `bias`), with the scores as the model gives them, in nat."""

    model_config = ConfigDict(frozen=True)

    temperature: float = Field(gt=0)
    bias: dict[str, float]


class AdapterCard(BaseModel):
    """What a card says that a run needs; the rest of it is for people.

    `prompts`: the version of each role's prompt that the adapter was trained on. `calibration` and `thresholds` (of a
    conformal set at 10 % error; of a pruned rung, the share that full depth has right) by `role.field`; `accuracy`: the
    share that the pruned rung itself has right. `worth`: how far fields must be under their thresholds, for every 1,000
    characters of the prompt, that full depth is asked. `layers`: those of the base that are kept, None for all.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    base_sha256: str
    adapter_sha256: str
    prompts: dict[str, str]
    calibration: dict[str, FieldCalibration]
    thresholds: dict[str, float] = {}
    accuracy: dict[str, float] = {}
    worth: float = 0.0
    layers: tuple[int, ...] | None = None

    @property
    def calibration_sha256(self) -> str:
        """Digest of what the card changes in an answer: how scores are calibrated, and on which prompts."""
        told = self.model_dump(mode="json", include={"prompts", "calibration"})
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def fields_of(self, role: str, version: str) -> dict[str, FieldCalibration]:
        """Calibration by field of a role whose prompt has `version`; none where it was trained on another."""
        return self._of(self.calibration, role, version)

    def thresholds_of(self, role: str, version: str) -> dict[str, float]:
        """Least probability (0 to 1) of a chosen value by field, as in `fields_of`; those of one value are left out."""
        found = self._of(self.thresholds, role, version)
        return {field: least for field, least in found.items() if "=" not in field}

    def expected_of(self, role: str, version: str) -> dict[str, dict[str, float]]:
        """An answer as sure as this precision is right on average, by field, as in `fields_of`."""
        return {field: {"right": share} for field, share in self._of(self.accuracy, role, version).items()}

    def _of(self, table: Mapping[str, T], role: str, version: str) -> dict[str, T]:
        if self.prompts.get(role) != version:
            return {}
        begins = f"{role}."
        return {name.removeprefix(begins): of for name, of in table.items() if name.startswith(begins)}


def adapter_for(source: ModelSource, settings: Settings, precision: str) -> tuple[Adapter | None, AdapterCard | None]:
    """The adapter that the settings merge into a model at a precision, if any, with its card if it has one.

    `auto` takes the shipped one that was trained for these weights, if any: that of fewer layers for the pruned rung,
    the other for all others. Errors: InputError for a file that is no
    adapter, a card that cannot be read, or one that tells of another file or another model.
    """
    if settings.adapter == NONE:
        return None, None
    if settings.adapter == AUTO:
        for path in sorted(SHIPPED.glob("*.json")):
            card = _read(path)
            if card.base_sha256 == source.sha256 and (card.layers is not None) == (precision == PRUNED):
                return _opened(path.with_suffix(".gguf"), source, settings)
        return None, None
    return _opened(Path(settings.adapter), source, settings)


def _opened(path: Path, source: ModelSource, settings: Settings) -> tuple[Adapter, AdapterCard | None]:
    if not path.expanduser().is_file():
        raise InputError(f"no adapter at {str(path)!r}", fix="set FINLLM_ADAPTER to auto, none, or a GGUF LoRA file")
    adapter = open_adapter(path, settings)
    beside = adapter.path.with_suffix(".json")
    if not beside.is_file():
        return adapter, None
    card = _read(beside)
    if card.layers != adapter.layers:
        told, kept = (layers or "all" for layers in (card.layers, adapter.layers))
        raise InputError(
            f"the card {str(beside)!r} tells of layers {told}, its adapter keeps {kept}",
            fix="set FINLLM_ADAPTER to an adapter with its own card, or to none",
        )
    for what, told, found in (
        ("file", card.adapter_sha256, adapter.sha256),
        ("model", card.base_sha256, source.sha256),
    ):
        if told != found:
            raise InputError(
                f"the card {str(beside)!r} tells of another {what}: sha256 {told[:12]}…, not {found[:12]}…",
                fix="set FINLLM_ADAPTER to an adapter of this model, or to none",
            )
    return adapter, card


def _read(path: Path) -> AdapterCard:
    try:
        return AdapterCard.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise InputError(
            f"cannot read the adapter's card {str(path)!r}: {error}", fix="set FINLLM_ADAPTER=none, or mend the card"
        ) from error

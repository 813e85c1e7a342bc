"""A backend that keeps its answers in a file, so that the same question to the same weights is asked once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from finllm.evaluation.calibrate import open_llama
from finllm.models.ladder import Rung
from finllm.models.source import ModelSource
from finllm.scheduler.backends import Backend, Generation, Offer, Request
from finllm.settings import Settings

KEPT = ("text", "choices", "prompt_tokens", "output_tokens", "seconds")


@contextmanager
def open_kept(source: ModelSource, rung: Rung, settings: Settings, folder: Path | None) -> Iterator[Backend]:
    """The model at a rung, its answers kept in `folder`, where one is given, in a file for its weights and build.

    Errors: as `open_llama`.
    """
    with open_llama(source, rung, settings) as backend:
        yield backend if folder is None else Kept(backend, folder)


@dataclass
class Kept:
    """Answers as they were given, with the seconds that they took then; half a line of a run that broke off is left
    out."""

    backend: Backend
    folder: Path
    _known: dict[str, Generation] = field(default_factory=dict[str, Generation], init=False)

    def __post_init__(self) -> None:
        offer = self.backend.offer
        of = hashlib.sha256(f"{offer.weights_sha256}{offer.build}".encode()).hexdigest()[:16]
        self._path = self.folder / f"{of}.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                with suppress(json.JSONDecodeError):
                    key, *told = json.loads(line)
                    self._known[key] = Generation(*told)

    @property
    def offer(self) -> Offer:
        return self.backend.offer

    async def generate(self, request: Request) -> Generation:
        """As the backend does. Errors: BackendError; a call that failed is asked again next time."""
        asked = (request.prompt, request.template, request.seed, json.dumps(request.priors, sort_keys=True))
        key = hashlib.sha256(repr(asked).encode()).hexdigest()[:24]
        if key not in self._known:
            made = await self.backend.generate(request)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps([key, *(getattr(made, name) for name in KEPT)])}")
            self._known[key] = made
        return self._known[key]

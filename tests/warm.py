"""What takes seconds to make is made once for all tests of a run, by whichever worker comes first: see `warm`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from finllm.desk import desk
from finllm.files import exclusive
from finllm.memory.knowledge import KnowledgeBase
from finllm.models.channel_reader import ChannelReader, ChannelReading
from finllm.models.embedding import EMBEDDING_NAME, Embedder
from finllm.models.injection import INJECTIONS
from finllm.models.second_opinion import NAME, SecondOpinion
from finllm.settings import Settings
from finllm.tools.forecasts.calibrations import Calibrations


class RememberingEmbedder(Embedder):
    """The real embedder, which reads each text once, by itself as a desk's does: a batch changes the last digits."""

    def __init__(self) -> None:
        super().__init__()
        self._read: dict[str, npt.NDArray[np.float32]] = {}

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        for text in texts:
            if text not in self._read:
                self._read[text] = super().embed([text])[0]
        return np.stack([self._read[text] for text in texts]) if texts else super().embed(texts)


class RememberingSecond(SecondOpinion):
    """The real second opinion, which reads each text once, by itself as a desk's does."""

    def __init__(self, embedder: Embedder, name: str = NAME) -> None:
        super().__init__(embedder, name=name)
        self._read: dict[str, npt.NDArray[np.float64]] = {}

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        for text in texts:
            if text not in self._read:
                self._read[text] = super().logits([text])[0]
        return np.stack([self._read[text] for text in texts]) if texts else super().logits(texts)


class RememberingReader(ChannelReader):
    """The real channel reader, which reads the same texts once."""

    def read(self, texts: Sequence[str]) -> list[ChannelReading]:
        known = self.__dict__.setdefault("_known", {})
        key = tuple(texts)
        if key not in known:
            known[key] = super().read(texts)
        return known[key]


@dataclass(frozen=True)
class Warm:
    """Rungs, a filled knowledge base and calibrations of forecasts, in one home that all workers share.

    Rungs and calibrations are written under the product's own locks, so that homes may link to them; a knowledge base
    is somebody's own, so it is copied.
    """

    shared: Settings
    embedder: Embedder

    @cached_property
    def calibrations(self) -> Calibrations:
        """Kept on disk: what one test computed, all others read."""
        return Calibrations(self.shared.calibrations_dir)

    @cached_property
    def channels(self) -> ChannelReader:
        """Of the smaller encoder, which is loaded anyway."""
        return RememberingReader(self.shared.encoder_dir, self.embedder, encoder=EMBEDDING_NAME)

    @cached_property
    def second(self) -> SecondOpinion:
        return RememberingSecond(self.embedder)

    @cached_property
    def instructions(self) -> SecondOpinion:
        """What the judge of instructions reads with: of the second opinion's kind, with weights of its own."""
        return RememberingSecond(self.embedder, INJECTIONS)

    def open_here(self, patch: pytest.MonkeyPatch) -> None:
        """Let every desk that this process opens read with the models that are loaded."""
        patch.setattr(desk, "RememberedEmbedder", lambda _: self.embedder)
        loaded = {NAME: lambda: self.second, INJECTIONS: lambda: self.instructions}
        patch.setattr(desk, "RememberedSecond", lambda _embedder, _vectors, name=NAME: loaded[name]())
        patch.setattr(desk, "ChannelReader", lambda *_: self.channels)

    def home(self, folder: Path) -> Path:
        """Make `folder` the home of somebody who has run `finllm` before."""
        settings = Settings(home=folder)
        for own, shared in (
            (settings.models_dir, self.shared.models_dir),
            (settings.calibrations_dir, self.shared.calibrations_dir),
            (settings.encoder_dir, self.shared.encoder_dir),
        ):
            shared.mkdir(parents=True, exist_ok=True)
            own.parent.mkdir(parents=True, exist_ok=True)
            own.symlink_to(shared)
        self.knowledge(settings.knowledge_dir)
        folder.chmod(0o700)
        return folder

    def knowledge(self, folder: Path) -> Path:
        """Make `folder` a store that holds the shipped precedents."""
        store = self.shared.knowledge_dir
        with exclusive(self.shared.home / ".knowledge.lock"):
            if not store.exists():
                made = self.shared.home / "knowledge.part"
                base = KnowledgeBase(made, self.embedder)
                base.open()
                base.close()
                made.rename(store)
        shutil.copytree(store, folder)
        return folder


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The home that the workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    return Settings(home=(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared", threads=2)


@pytest.fixture(scope="session")
def shared_embedder() -> Embedder:
    return RememberingEmbedder()


@pytest.fixture(scope="session")
def warm(shared_home: Settings, shared_embedder: Embedder) -> Warm:
    """`warm.home(folder)` for a test that is not about a first run; `warm.calibrations` for a desk of its own."""
    return Warm(shared_home, shared_embedder)

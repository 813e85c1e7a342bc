"""The corpus as batches of token trees for the embedded model."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from finllm.models.source import ModelSource, embedded_source
from finllm.settings import Settings, load_settings
from training.config import Config
from training.corpus.build import Corpus, build_corpus
from training.corpus.schema import Split
from training.items import Question, question, training_questions
from training.packing import Batch, Tree, balanced, pack, trees
from training.vocabulary import ChatTokens, vocabulary_of


class Data:
    """Corpus, vocabulary and base weights, each read when first asked for."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or load_settings().settings

    @cached_property
    def source(self) -> ModelSource:
        return embedded_source(self._settings)

    @property
    def weights(self) -> Path:
        return self.source.path

    @cached_property
    def corpus(self) -> Corpus:
        return build_corpus()

    def questions(self, split: Split) -> list[Question]:
        """A split's items, each in the one form in which it is scored."""
        return [question(item) for item in self.corpus.items[split]]

    def trees(self, questions: Sequence[Question], handwritten: float = 1.0) -> list[Tree]:
        vocabulary = vocabulary_of(self.weights)
        chat = ChatTokens(vocabulary)
        return trees(questions, lambda q: chat(q.prompt), vocabulary.tokenize, balanced(questions, handwritten))

    def training(self, config: Config, epoch: int) -> list[Batch]:
        """An epoch's batches, the same for the same settings."""
        seed = config.seed * 1000 + epoch
        items = [item for split in config.splits for item in self.corpus.items[_split(split)]]
        questions = training_questions(items, seed, config.share)
        return pack(self.trees(questions, config.handwritten), config.tokens, random.Random(seed))


def _split(name: str) -> Split:
    splits: Iterable[Split] = ("train", "validation", "test")
    return next(split for split in splits if split == name)

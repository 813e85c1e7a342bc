"""The tokeniser of a GGUF file, loaded without its weights: the same pieces that the engine feeds."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from finllm.models import llama_log
from finllm.scheduler.engine.vocabulary import Vocabulary
from finllm.scheduler.placement.task import Prompt


@cache
def vocabulary_of(path: Path) -> Vocabulary:
    """Errors: ValueError for a file that llama.cpp cannot read."""
    import llama_cpp

    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    with llama_log.listening(lambda _level, _text: None):
        model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise ValueError(f"llama.cpp cannot read {str(path)!r}")
    return Vocabulary(llama_cpp, model)


class ChatTokens:
    """`Vocabulary.chat_tokens` for many prompts with one system message: only the user's is cut anew."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._frames: dict[str, tuple[list[int], list[int]]] = {}

    def __call__(self, prompt: Prompt) -> list[int]:
        if prompt.system not in self._frames:
            whole, mark = self._vocabulary.chat_tokens(Prompt(prompt.system, _MARK)), self._vocabulary.tokenize(_MARK)
            at = next(i for i in range(len(whole)) if whole[i : i + len(mark)] == mark)
            before, after = whole[:at], whole[at + len(mark) :]
            self._frames[prompt.system] = (before, after)
        before, after = self._frames[prompt.system]
        return [*before, *self._vocabulary.tokenize(prompt.user), *after]


_MARK = "\x01"

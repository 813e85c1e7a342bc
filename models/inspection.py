"""What a GGUF file says and whether it is whole, read by llama.cpp in a child process that a bad file may kill."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from finllm.errors import BackendError, InputError
from finllm.models.llama_log import ERROR_LEVEL, listening

Fields = Mapping[str, Sequence[str]]
"""The values that a judgement may give to a field, by `agent.field`."""

CHILD_TIMEOUT = 600.0
"""Longest wait for llama.cpp to read and check every tensor of a file, s."""

_CHILD = "from finllm.models.inspection import answer; answer()"


class Inspection(BaseModel):
    """A model file as llama.cpp reads it. `context`: the context it was trained with, tokens.

    `licence`: as the file states it, empty where it states none. `scored_whole`: the fields of which two values start
    with the same token, so that their first tokens do not decide and whole values have to be scored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str
    tokenizer: str
    context: int
    parameters: int
    chat_template: str
    licence: str
    scored_whole: tuple[str, ...]


def inspect_model(path: Path, fields: Fields) -> Inspection:
    """Load the file with every tensor checked, in a child process, and tell what is in it.

    Errors: InputError for a file that is corrupt, truncated, or has no chat template; BackendError where llama.cpp
    itself does not start.
    """
    asked = json.dumps({"path": str(path), "fields": {name: list(values) for name, values in fields.items()}})
    fix = "fetch the file again, or choose another"
    try:
        child = subprocess.run(
            [sys.executable, "-c", _CHILD], input=asked, capture_output=True, text=True,
            timeout=CHILD_TIMEOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{str(path)!r} was not read within {CHILD_TIMEOUT:.0f} s", fix=fix) from error
    if child.returncode < 0:
        raise InputError(f"{str(path)!r} is corrupt: llama.cpp died of signal {-child.returncode} reading it", fix=fix)
    try:
        said: dict[str, Any] = json.loads(child.stdout)
    except ValueError as error:
        why = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        raise BackendError(f"llama.cpp cannot be asked about a model: {why}", fix="run 'finllm doctor'") from error
    if "problem" in said:
        raise InputError(f"{str(path)!r} {said['problem']}", fix=fix)
    return Inspection.model_validate(said)


def starting_alike(starts: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    """The fields of which two values start with the same token. `starts`: first token by value, by field."""
    return tuple(sorted(name for name, first in starts.items() if len(set(first.values())) < len(first)))


def inspect_here(path: Path, fields: Fields) -> dict[str, Any]:
    """As `inspect_model`, in this process: the answer's fields, or `problem`."""
    import llama_cpp

    llama: Any = llama_cpp
    errors: list[str] = []
    with listening(lambda level, text: errors.append(text.strip()) if level == ERROR_LEVEL else None):
        params = llama.llama_model_default_params()
        params.check_tensors = True
        params.use_extra_bufts = False
        model = llama.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        why = next((line for line in errors if line), "llama.cpp does not say why")
        return {"problem": f"cannot be loaded: {why}"}
    try:
        template = llama.llama_model_chat_template(model, None)
        if template is None:
            return {"problem": "has no chat template, so it is no chat model"}
        vocabulary = llama.llama_model_get_vocab(model)
        starts = {name: {value: _first_token(llama, vocabulary, value) for value in of} for name, of in fields.items()}
        kind, pre = _meta(llama, model, "tokenizer.ggml.model"), _meta(llama, model, "tokenizer.ggml.pre")
        return {
            "architecture": _meta(llama, model, "general.architecture"),
            "tokenizer": f"{kind}/{pre}" if pre else kind,
            "context": llama.llama_model_n_ctx_train(model),
            "parameters": llama.llama_model_n_params(model),
            "chat_template": template.decode("utf-8", "replace"),
            "licence": _meta(llama, model, "general.license"),
            "scored_whole": starting_alike(starts),
        }
    finally:
        llama.llama_model_free(model)


def _meta(llama: Any, model: Any, key: str) -> str:
    buffer = ctypes.create_string_buffer(256)
    found = llama.llama_model_meta_val_str(model, key.encode(), buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace") if found >= 0 else ""


def _first_token(llama: Any, vocabulary: Any, value: str) -> int:
    data = value.encode()
    tokens = (llama.llama_token * (len(data) + 8))()
    count = llama.llama_tokenize(vocabulary, data, len(data), tokens, len(tokens), False, False)
    return tokens[0] if count > 0 else -1


def answer() -> None:
    """The child's part: a question on stdin, an answer on stdout, each one JSON object."""
    asked = json.loads(sys.stdin.read())
    print(json.dumps(inspect_here(Path(asked["path"]), asked["fields"])))

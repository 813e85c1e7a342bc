"""The chat prompt of a model: its own template around the two messages, which are data and never control tokens."""

from __future__ import annotations

from dataclasses import dataclass

from finllm.errors import BackendError
from finllm.scheduler.task import Prompt

_SYSTEM, _USER = "\x02system\x03", "\x02user\x03"


@dataclass(frozen=True)
class Piece:
    """Text of a chat prompt. `special`: written by the template, so that control tokens in it count."""

    text: str
    special: bool


def chat_pieces(template: str | None, prompt: Prompt) -> list[Piece]:
    """Split the rendered chat template at the two messages, so that these can be tokenised as data.

    `template` is Jinja, None for a model without one. A model whose template knows no system message gets both in the
    user's. Errors: BackendError for a template that does not show each message once.
    """
    separate = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}]
    joined = [{"role": "user", "content": f"{_SYSTEM}\n\n{_USER}"}]
    for messages in (separate, joined):
        rendered = _rendered(template, messages)
        if rendered.count(_SYSTEM) == rendered.count(_USER) == 1 and rendered.index(_SYSTEM) < rendered.index(_USER):
            before, rest = rendered.split(_SYSTEM)
            between, after = rest.split(_USER)
            pieces = ((before, True), (prompt.system, False), (between, True), (prompt.user, False), (after, True))
            return [Piece(text, special) for text, special in pieces if text]
    raise BackendError("the model's chat template cannot be used", fix="set FINLLM_MODEL to a chat model's GGUF file")


def _rendered(template: str | None, messages: list[dict[str, str]]) -> str:
    """The chat as the model expects it; empty where its template refuses these messages."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if template is None:
        return "\n\n".join([message["content"] for message in messages] + [""])
    try:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        return environment.from_string(template).render(
            messages=messages, add_generation_prompt=True, bos_token="", eos_token=""
        )
    except (TemplateError, TypeError):
        return ""

"""The chat prompt of a model: its own template around the two messages, which are data and never control tokens."""

from __future__ import annotations

from dataclasses import dataclass

from finllm.errors import BackendError
from finllm.scheduler.placement.task import Prompt

_SYSTEM, _USER = "\x02system\x03", "\x02user\x03"


@dataclass(frozen=True)
class Piece:
    """Text of a chat prompt. `special`: written by the template, so that control tokens in it count."""

    text: str
    special: bool


def chat_layouts() -> tuple[list[dict[str, str]], ...]:
    """The ways to lay a prompt out as messages, best first, with marks in the place of its two texts.

    A model whose template knows no system message gets both in the user's.
    """
    separate = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}]
    return separate, [{"role": "user", "content": f"{_SYSTEM}\n\n{_USER}"}]


def split_at_marks(rendered: str, prompt: Prompt) -> list[Piece] | None:
    """The prompt in a rendered layout; None where that does not show each mark once."""
    if not (rendered.count(_SYSTEM) == rendered.count(_USER) == 1 and rendered.index(_SYSTEM) < rendered.index(_USER)):
        return None
    before, rest = rendered.split(_SYSTEM)
    between, after = rest.split(_USER)
    pieces = ((before, True), (prompt.system, False), (between, True), (prompt.user, False), (after, True))
    return [Piece(text, special) for text, special in pieces if text]


def chat_pieces(template: str | None, prompt: Prompt) -> list[Piece]:
    """Split the rendered chat template at the two messages, so that these can be tokenised as data.

    `template` is Jinja, None for a model without one. Errors: BackendError for a template that does not show each
    message once.
    """
    for messages in chat_layouts():
        pieces = split_at_marks(_rendered(template, messages), prompt)
        if pieces is not None:
            return pieces
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

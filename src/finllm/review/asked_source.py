"""Which source a question was about, told from its prompt: what the sanity-checker is asked names it by its text."""

from __future__ import annotations

from finllm.desk.request import RunRequest
from finllm.guardrails.sanitise import read_traced, sanitise_name
from finllm.scheduler.placement.task import Prompt

_MATERIAL = "<data>\n"
_ENOUGH = 60
"""Characters of a text that tell it from another of the same publisher."""


def asked_source(prompt: Prompt, request: RunRequest) -> str | None:
    """The id of the source that a prompt puts first; None for the prompt without content that asks for a prior."""
    material = prompt.user.partition(_MATERIAL)[2]
    found: list[str] = []
    for source in request.scenario.sources:
        name = sanitise_name(source.publisher)[0]
        said = material.removeprefix(f"{name}: ") if name else material.partition(": ")[2]
        if name and said == material:
            continue
        text = read_traced(source.text, request.as_of)[0].text
        if said[:_ENOUGH].split("\n")[0] and text.startswith(said[:_ENOUGH].split("\n")[0]):
            return source.id
        found.append(source.id)
    return found[0] if len(found) == 1 else None

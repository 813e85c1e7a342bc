"""`finllm nodes add` and `remove`: servers that this home asks, kept in `nodes.json`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

import typer
from pydantic import ValidationError

from finllm import running
from finllm.cli.display.terminal import print_json
from finllm.cli.options import JsonFlag, examples
from finllm.errors import InputError
from finllm.plain_text import clean_lines
from finllm.settings import Settings, load_settings

if TYPE_CHECKING:
    from finllm.scheduler.backends.joined import Joined
    from finllm.scheduler.health.question import Examined


def add_to(group: typer.Typer) -> None:
    url = "http://localhost:8080"
    group.command("add", epilog=examples(
        f"finllm nodes add {url}", f"finllm nodes add {url} --name mine --tier edge --precision Q4_K_M",
        "finllm nodes add https://models.example.com --model large --api-key-env MODELS_KEY --usd-per-mtok 0.15,0.6",
        "finllm nodes add http://gpu-1:8000 --kind vllm",
    ))(add)  # fmt: skip
    group.command("remove", epilog=examples("finllm nodes remove mine"))(remove)


def add(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where it listens, such as http://localhost:8080.")],
    name: Annotated[str | None, typer.Option("--name", help="What to call it.  \\[default: TIER:MODEL@HOST]")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model to ask.  \\[default: the first served]")] = None,
    tier: Annotated[Literal["deep", "edge"], typer.Option("--tier", help="What its answers are used for.")] = "deep",
    precision: Annotated[str, typer.Option("--precision", help="Of its weights, such as BF16 or Q4_K_M.")] = "BF16",
    kind: Annotated[
        str, typer.Option("--kind", help="How it is spoken to: openai (chat completions: llama-server, Ollama, LM "
                                         "Studio, paid services) or vllm (exact scores by token id).")] = "openai",
    api_key_env: Annotated[
        str | None, typer.Option("--api-key-env", metavar="VARIABLE", help="Variable that holds its key; the key "
                                                                           "itself is written nowhere.")] = None,
    usd_per_mtok: Annotated[
        str | None, typer.Option("--usd-per-mtok", metavar="IN,OUT", help="What it charges per million tokens of "
                                                                          "prompt and of output, USD.")] = None,
    context: Annotated[
        int | None, typer.Option("--context", help="Its context, tokens.  \\[default: as it tells, else 8192]")] = None,
    votes: Annotated[
        int, typer.Option("--votes", help="Sampled answers that are counted, where it gives no log-probabilities.")
    ] = 9,
    power: Annotated[str, typer.Option("--power", help="Power domain that it shares with others.")] = "",
    network: Annotated[str, typer.Option("--network", help="Network domain that it shares with others.")] = "",
    check: Annotated[bool, typer.Option("--check/--no-check", help="Ask it first: does it serve the model, and answer "
                                                                   "a typed question?")] = True,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Add a server to the backends of this home. It is asked one typed question first. Adding again changes it.

    Where it gives no log-probabilities, probabilities are the shares of several sampled answers, and that is said.
    Critical calls run on two vLLM servers of the same weights at once, if neither --power nor --network is the same.
    """
    from finllm.scheduler.backends.joined import Joined, first_problem, join
    from finllm.scheduler.backends.registry import by_url
    from finllm.scheduler.money.tariff import token_prices

    settings = load_settings().settings
    by_url(kind)
    tariff = token_prices(usd_per_mtok, "--usd-per-mtok")
    fields = {
        "name": name or f"{tier}:{model or 'as-served'}@{urlsplit(url).netloc}", "kind": kind, "url": url,
        "model": model, "tier": tier, "precision": precision, "api_key_env": api_key_env, "context": context,
        "usd_per_mtok": None if tariff is None else (tariff.per_million_prompt, tariff.per_million_output),
        "votes": votes, "power": power, "network": network,
    }  # fmt: skip
    try:
        node = Joined.model_validate(fields)
    except ValidationError as error:
        raise InputError(f"the node cannot be added: {first_problem(error)}", fix="correct that option") from error
    found, node = _asked(node, settings) if check else (None, node)
    changed = join(settings, node)
    if as_json:
        print_json({"added": node.model_dump(mode="json"), "changed": changed,
                    "answered_in_seconds": None if found is None else found.seconds})  # fmt: skip
    else:
        print(clean_lines(_told(node, found, changed, settings)), end="")


def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name that 'finllm nodes' shows.")],
    as_json: JsonFlag = False,
) -> None:
    """Remove a server that was added. What it answered stays on record."""
    from finllm.scheduler.backends.joined import leave

    settings = load_settings().settings
    leave(settings, name)
    if as_json:
        print_json({"removed": name})
    else:
        print(clean_lines(f"{name}: removed\n"), end="")


def _asked(node: Joined, settings: Settings) -> tuple[Examined, Joined]:
    """The server's answer to a typed question, and the node with what was learned of it."""
    from finllm.events import EventBus
    from finllm.scheduler.backends.kind import Opening
    from finllm.scheduler.backends.registry import by_url
    from finllm.scheduler.health.question import examined

    with contextlib.ExitStack() as closing:
        backend = by_url(node.kind).site(node).open(Opening(settings, EventBus(), closing))
        found = running.run(examined(backend))
        return found, node.model_copy(update={"scores": backend.offer.scores})


def _told(node: Joined, found: Examined | None, changed: bool, settings: Settings) -> str:
    done = "added" if changed else "as it was"
    lines = [f"{node.name}: {done}, {node.tier} tier, {node.precision}; {settings.nodes_path}"]
    lines.append(f"  {found.words}" if found else "  not asked; 'finllm doctor' asks it")
    if node.scores == "votes":
        lines.append(f"  no log-probabilities: its probabilities are shares of {node.votes} sampled answers")
    if node.tariff is None:
        lines.append("  no prices: what it costs is not known; a budget in USD needs --usd-per-mtok")
    return "\n".join(lines) + "\n"

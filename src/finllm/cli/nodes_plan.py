"""`finllm nodes plan`: how to spread a model over GPUs, as `vllm serve` takes it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.options import JsonFlag, examples
from finllm.plain_text import clean


def add_to(group: typer.Typer) -> None:
    group.command("plan", epilog=examples(
        "finllm nodes plan served/smollm2 --gpus gpus.yaml", "finllm nodes plan llama-70b/config.json --gpus gpus.yaml "
        "--context 8192 --sequences 32 --bytes 0.5 --json",
    ))(plan)  # fmt: skip


def plan(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A Hugging Face folder, or its config.json.")],
    gpus: Annotated[Path, typer.Option("--gpus", metavar="FILE", help="YAML: 'gpus' with id, node and memory_gib each; "
                                                                      "'nvlink' as lists of ids that it joins.")],
    context: Annotated[int, typer.Option("--context", min=1, help="Tokens of a sequence, at most.")] = 4096,
    sequences: Annotated[int, typer.Option("--sequences", min=1, help="Sequences that are served side by side.")] = 8,
    bytes_each: Annotated[
        float, typer.Option("--bytes", min=0.1, max=8.0, help="Bytes of a weight: 2 for BF16, 0.5 for 4 bits.")
    ] = 2.0,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Plan how to spread a model over GPUs: tensor and pipeline sizes for 'vllm serve', and why.

    Tensor parallelism stays inside a group that NVLink joins, pipeline stages go across. Reckoned, not
    measured: it loads no model and asks no GPU.
    """
    from finllm.scheduler.backends.sharding import GIB, advise
    from finllm.scheduler.backends.sharding_files import read_gpus, read_shape

    machines, links = read_gpus(gpus)
    found = advise(read_shape(model, bytes_each), machines, links, kv_tokens=context * sequences)
    if as_json:
        print_json({**asdict(found), "flags": found.flags})
        return
    from finllm.cli.display.report import text

    console = out_console()
    print(clean(f"vllm serve {model} {found.flags} --max-model-len {context} --max-num-seqs {sequences}"))
    for number, stage in enumerate(found.stages, 1):
        console.print(text(f"stage {number}: {', '.join(stage)}"))
    room = f"{found.weight_bytes / GIB:.1f} GiB of weights, room for {found.kv_tokens:,} tokens of KV cache"
    console.print(text(f"each GPU: {room}; {found.copies} such beside each other on these GPUs"))
    for why in found.why:
        console.print(text(f"- {why}"))

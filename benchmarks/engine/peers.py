"""One contender of the engine's benchmark in a process of its own: prints what it did as one JSON object.

`python -m benchmarks.engine.peers NAME MODEL ROUND [AT_ONCE]`
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.engine.work import OUT, Judgement, chats, events
from finllm.scheduler.decoding.template import Template, Write, compile_template
from finllm.scheduler.engine.engine import Engine, EngineConfig
from finllm.scheduler.engine.job import Finished, Job, Work
from finllm.scheduler.engine.native import BATCH, Native, Run
from finllm.scheduler.placement.task import Prompt

THREADS = 2
Figures = dict[str, float]


def main() -> None:
    name, model, mark, at_once = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int((sys.argv[4:] or ["1"])[0])
    contenders: dict[str, Callable[[Path, str, int], Figures]] = {
        "stock": stock,
        "xllamacpp": xllamacpp,
        "engine": engine,
        "limit": limit,
    }
    print(json.dumps(contenders[name](model, mark, at_once)))


def stock(model: Path, mark: str, at_once: int) -> Figures:
    """`llama_cpp.Llama` behind a lock: it serves one request after another, however many wait."""
    del at_once
    import llama_cpp

    llama: Any = llama_cpp.Llama(
        str(model), n_ctx=2048, n_threads=THREADS, n_threads_batch=THREADS, seed=0, verbose=False
    )

    def chat(prompt: Prompt, **how: Any) -> int:
        messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
        answer = llama.create_chat_completion(messages, temperature=0, **how)
        return int(answer["usage"]["completion_tokens"])

    chat(chats("warm")[0], max_tokens=2)
    started = time.monotonic()
    tokens = sum(chat(prompt, max_tokens=OUT) for prompt in chats(mark))
    chat_seconds = time.monotonic() - started
    judge = {"max_tokens": 120, "response_format": {"type": "json_object", "schema": Judgement.model_json_schema()}}
    chat(events("warm")[0], **judge)
    seconds = [_timed(lambda prompt=prompt: chat(prompt, **judge)) for prompt in events(mark)]
    return {"chat": tokens / chat_seconds, "judgement": _median(seconds), "judgements": len(seconds) / sum(seconds)}


def xllamacpp(model: Path, mark: str, at_once: int) -> Figures:
    """llama.cpp's own server in the process, with as many slots as clients."""
    import xllamacpp as xlc

    params: Any = xlc.CommonParams()
    params.model.path = str(model)
    params.n_parallel = at_once
    params.n_ctx = 512 * at_once
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
    params.verbosity = -1
    server: Any = xlc.Server(params)

    def chat(prompt: Prompt, tokens: int = OUT) -> int:
        messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
        answer = server.handle_chat_completions({"messages": messages, "max_tokens": tokens, "temperature": 0})
        answer = json.loads(answer) if isinstance(answer, str) else answer
        return int(answer["usage"]["completion_tokens"])

    chat(chats("warm")[0], 2)
    started = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        tokens = sum(pool.map(chat, chats(mark)))
    return {"chat": tokens / (time.monotonic() - started)}


def engine(model: Path, mark: str, at_once: int) -> Figures:
    """Ours, asked by so many clients at once."""
    ours = Engine(EngineConfig(model, THREADS, slots=at_once, context=2048, cells=8192, store=256 << 20))
    says: Template = (Write("text", OUT, None),)
    judges = compile_template(Judgement, {})
    _ask(ours, chats("warm")[:1], (Write("text", 2, None),), 1)
    started = time.monotonic()
    tokens = sum(answer.output_tokens for answer in _ask(ours, chats(mark), says, at_once))
    chat_seconds = time.monotonic() - started
    _ask(ours, events("warm")[:1], judges, 1)
    seconds = [_timed(lambda prompt=prompt: _ask(ours, [prompt], judges, 1)) for prompt in events(f"{mark} alone ", 8)]
    together = _timed(lambda: _ask(ours, events(mark), judges, at_once))
    ours.close()
    return {"chat": tokens / chat_seconds, "judgement": _median(seconds), "judgements": 24 / together}


def limit(model: Path, mark: str, at_once: int) -> Figures:
    """A raw decode loop over sequences that share a prefix, with nothing around it, and the unshared prefill.

    The attention that is fastest for it on this machine is the engine's own, so the loop uses it too. What ends leaves
    the batch.
    """
    native = Native(model, threads=THREADS, cells=8192, sequences=at_once)
    prompts = [native.vocabulary.chat_tokens(prompt) for prompt in chats(mark)]
    shared = next(i for i, tokens in enumerate(zip(*prompts, strict=False)) if len(set(tokens)) > 1)
    native.decode([Run(0, 0, prompts[0][:shared], scored=False)])
    seconds, tokens = 0.0, 0
    for start in range(0, len(prompts), at_once):
        group = prompts[start : start + at_once]
        for sequence in range(1, len(group)):
            native.share(0, sequence, shared)
        started = time.monotonic()
        last = dict(enumerate(_prefill(native, [prompt[shared:] for prompt in group], shared)))
        for step in range(OUT):
            last = {s: token for s, token in last.items() if token not in native.vocabulary.ends}
            tokens += len(last)
            if not last or step == OUT - 1:
                break
            runs = [Run(s, len(group[s]) + step, [token], scored=True) for s, token in last.items()]
            rows = native.decode(runs)
            last = {s: int(native.logits(row).argmax()) for s, row in zip(list(last), rows, strict=True)}
        seconds += time.monotonic() - started
        for sequence in range(len(group)):
            native.forget(sequence, shared if sequence == 0 else 0)
    native.close()
    return {"chat": tokens / seconds}


def _prefill(native: Native, tails: Sequence[list[int]], shared: int) -> list[int]:
    """Prefill the tails in as few steps as they take; returns each one's first output token."""
    last: list[int] = []
    waiting = list(enumerate(tails))
    while waiting:
        runs: list[Run] = []
        while waiting and sum(len(run.tokens) for run in runs) + len(waiting[0][1]) <= BATCH:
            sequence, tail = waiting.pop(0)
            runs.append(Run(sequence, shared, tail, scored=True))
        last += [int(native.logits(row).argmax()) for row in native.decode(runs)]
    return last


def _ask(ours: Engine, prompts: Sequence[Prompt], template: Template, at_once: int) -> list[Finished]:
    """Ask by `at_once` clients, each with its next request as soon as it has its answer."""

    def ask(prompt: Prompt) -> Finished:
        answered = threading.Event()
        answers: list[Finished | Exception] = []

        def done(result: Finished | Exception) -> None:
            answers.append(result)
            answered.set()

        ours.submit(Job(Work(prompt, template), done))
        answered.wait()
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(ask, prompts))


def _timed(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


if __name__ == "__main__":
    main()

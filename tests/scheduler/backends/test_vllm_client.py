"""The vLLM client and what it is made of, against servers that answer as no good server would."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finllm.errors import BackendError
from finllm.scheduler.backends.http_client import Refused
from finllm.scheduler.backends.loop_thread import LoopThread
from finllm.scheduler.backends.pulse import Pulse, Standstill
from finllm.scheduler.backends.vllm import prose_regex, weights_digest
from finllm.scheduler.backends.vllm_client import Patience, VllmClient
from finllm.scheduler.backends.vllm_metrics import parse_metrics
from finllm.scheduler.backends.vllm_prompt import PromptTokenizer
from finllm.scheduler.backends.vllm_wire import Served
from finllm.scheduler.decoding.prose import Prose
from finllm.scheduler.placement.task import Prompt
from tests.conftest import bounded

HASTY = Patience(connect=0.2, reply=0.3, call=0.6, stall=0.2, first=0.2, look=0.05, backoff=0.001)
USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 2}}
METRICS = """# HELP vllm:num_requests_running Number of requests
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:num_requests_running{engine="1",model_name="m"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 7.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
vllm:prompt_tokens_total{engine="0",model_name="m"} 1.5e+02
vllm:prompt_tokens_cached_total{engine="0",model_name="m"} 100.0
vllm:generation_tokens_total{engine="0",model_name="m"} 40.0
vllm:iteration_tokens_total_count{engine="0",model_name="m"} 12.0
vllm:num_preemptions_total{engine="0",model_name="m"} 1.0
process_start_time_seconds 1.7e+09
"""
Handler = Callable[[httpx.Request], httpx.Response]


def scored(score: float = -1.0, **changes: Any) -> dict[str, Any]:
    choice = {"index": 0, "logprobs": {"top_logprobs": [{"token_id:5": score, "token_id:7": -9999.0}]}}
    return {"choices": [choice], "usage": USAGE} | changes


def client_on(handler: Handler) -> VllmClient:
    return VllmClient(
        "http://server/v1/", patience=HASTY, transport=httpx.MockTransport(handler), jitter=random.Random(0)
    )


def counting(*answers: httpx.Response | Exception) -> tuple[VllmClient, list[str]]:
    """A client whose server gives these answers in turn, the last for ever; and the paths it was asked for."""
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/metrics":
            asked.append(request.url.path)
        answer = answers[min(len(asked), len(answers)) - 1] if asked else httpx.Response(200, text=METRICS)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return client_on(handle), asked


def score(client: VllmClient) -> Any:
    async def once() -> Any:
        try:
            return await client.score("m", [[1, 2]], [5, 7])
        finally:
            await client.aclose()

    return bounded(once())


def test_scores_are_read_by_token_id_and_the_floor_is_minus_infinity() -> None:
    client, _ = counting(httpx.Response(200, json=scored(-0.5)))
    scores = score(client)
    assert scores.logprobs == ({5: -0.5, 7: float("-inf")},)
    assert (scores.usage.prompt, scores.usage.output, scores.usage.cached) == (3, 1, 2)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(status: int) -> None:
    client, asked = counting(httpx.Response(status), httpx.Response(status), httpx.Response(200, json=scored()))
    assert score(client).logprobs[0][5] == -1.0
    assert len(asked) == 3


def test_an_engine_that_asked_to_be_left_alone_is_not_taken_to_hang() -> None:
    busy = httpx.Response(429, headers={"retry-after": "0.5"})
    client, asked = counting(busy, httpx.Response(200, json=scored()))
    client.patience = client._http.patience = replace(HASTY, call=5.0)
    assert score(client).logprobs[0][5] == -1.0
    assert len(asked) == 2


@pytest.mark.parametrize("score_told", ["NaN", '"nan"'])
def test_a_score_that_is_not_a_number_is_a_backend_error(score_told: str) -> None:
    client, _ = counting(httpx.Response(200, text=json.dumps(scored(-7.5)).replace("-7.5", score_told)))
    with pytest.raises(BackendError, match="did not answer as vLLM servers do"):
        score(client)


def test_a_server_that_stays_busy_is_given_up() -> None:
    client, asked = counting(httpx.Response(503, text="full"))
    with pytest.raises(Refused, match="refused with 503: full"):
        score(client)
    assert len(asked) == HASTY.tries


def test_a_server_that_is_not_there_yet_is_tried_again_and_then_named() -> None:
    client, asked = counting(httpx.ConnectError("refused"), httpx.Response(200, json=scored()))
    score(client)
    assert len(asked) == 2
    client, asked = counting(httpx.ConnectError("refused"))
    with pytest.raises(BackendError, match=r"no vLLM server answers at http://server: .*; start it"):
        score(client)
    assert len(asked) == HASTY.tries


@pytest.mark.parametrize(
    "answer", [httpx.ReadError("reset"), httpx.RemoteProtocolError("gone"), httpx.Response(500, text="dead")]
)
def test_a_request_that_may_have_been_begun_is_not_sent_again(answer: httpx.Response | Exception) -> None:
    client, asked = counting(answer)
    with pytest.raises(BackendError):
        score(client)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("status", "fix"), [(401, "FINLLM_VLLM_API_KEY"), (404, "FINLLM_VLLM_MODEL"), (400, "--max-model-len")]
)
def test_a_refusal_carries_the_server_s_words_and_the_mend(status: int, fix: str) -> None:
    client, _ = counting(httpx.Response(status, json={"error": {"message": "its own words"}}))
    with pytest.raises(Refused, match="its own words") as refusal:
        score(client)
    assert fix in refusal.value.fix
    assert refusal.value.status == status


@pytest.mark.parametrize(
    "body",
    [
        "", "[]", "null", '"text"', "<html>", "{}", json.dumps(scored(0.5)), json.dumps(scored(choices=[])),
        json.dumps(scored(usage=None)), json.dumps(scored(choices=[{"index": 0, "logprobs": None}])),
    ],
)  # fmt: skip
def test_an_answer_that_is_not_vllm_s_is_a_backend_error(body: str) -> None:
    client, _ = counting(httpx.Response(200, text=body))
    with pytest.raises(BackendError, match="did not answer as vLLM servers do"):
        score(client)


def lines(*pieces: dict[str, Any]) -> str:
    return "".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces) + "data: [DONE]\n\n"


def streamed(client: VllmClient) -> list[Any]:
    async def whole() -> list[Any]:
        try:
            async with aclosing(client.stream("m", [1], max_tokens=9)) as chunks:
                return [chunk async for chunk in chunks]
        finally:
            await client.aclose()

    return bounded(whole())


def test_a_stream_gives_text_and_then_usage() -> None:
    pieces = ({"choices": [{"text": "oil", "finish_reason": "stop"}]}, {"choices": [], "usage": USAGE})
    client, _ = counting(httpx.Response(200, text=": a comment\n\n" + lines(*pieces)))
    text, usage = streamed(client)
    assert (text.text, text.ended, text.usage) == ("oil", "stop", None)
    assert usage.usage.output == 1


def test_an_error_inside_a_stream_is_raised() -> None:
    client, _ = counting(httpx.Response(200, text=lines({"error": {"message": "engine dead"}})))
    with pytest.raises(BackendError, match="engine dead"):
        streamed(client)


@pytest.mark.parametrize("work", ["score", "models"])
def test_a_server_that_takes_requests_and_says_nothing_is_given_up_in_time(work: str) -> None:
    async def ask() -> None:
        writers: list[asyncio.StreamWriter] = []
        server = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
        client = VllmClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", patience=HASTY)
        try:
            await (client.score("m", [[1]], [5]) if work == "score" else client.models())
        finally:
            await client.aclose()
            for writer in writers:
                writer.close()
                await writer.wait_closed()
            server.close()
            await server.wait_closed()

    with pytest.raises(BackendError, match=r"hangs|gave no whole answer in time"):
        bounded(ask(), 3.0)


def test_the_key_is_sent_and_shown_nowhere() -> None:
    seen: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(403, text="no")

    async def ask() -> str:
        client = VllmClient("http://server", api_key="hush", patience=HASTY, transport=httpx.MockTransport(handle))
        try:
            await client.models()
        except BackendError as error:
            return f"{error} {client!r} {error!r}"
        finally:
            await client.aclose()
        return ""

    said = bounded(ask())
    assert seen == ["Bearer hush"]
    assert "403" in said
    assert "hush" not in said


def test_metrics_sum_the_engines_of_a_server() -> None:
    load = parse_metrics(METRICS)
    assert (load.running, load.waiting, load.kv_used) == (5, 7, 0.75)
    assert (load.prompt_tokens, load.cached_tokens, load.output_tokens) == (150, 100, 40)
    assert load.progress == (12, 150, 40)


def test_a_page_without_vllm_s_counters_is_an_error() -> None:
    with pytest.raises(ValueError, match="num_requests_running"):
        parse_metrics("process_start_time_seconds 1.7e+09\n")


def test_an_engine_that_moves_is_waited_for_and_one_that_stands_still_is_not() -> None:
    steps = 0

    async def look() -> int:
        return steps

    async def moving(pulse: Pulse) -> str:
        nonlocal steps
        for _ in range(12):
            await asyncio.sleep(0.05)
            steps += 1
        return "done"

    async def watch() -> tuple[str, list[Any]]:
        pulse = Pulse(look, lambda: 0.2, every=0.02)
        done = await pulse.guard(moving(pulse))
        hung = await asyncio.gather(
            *(pulse.guard(asyncio.sleep(30)) for _ in range(3)), pulse.guard(asyncio.sleep(0.01, "quick")),
            return_exceptions=True,
        )  # fmt: skip
        return done, hung

    done, outcomes = bounded(watch(), 5.0)
    assert done == "done"
    assert [type(outcome) for outcome in outcomes[:3]] == [Standstill] * 3
    assert outcomes[3] == "quick"


def test_counters_that_cannot_be_read_are_no_progress() -> None:
    async def look() -> int:
        raise OSError("away")

    with pytest.raises(Standstill):
        bounded(Pulse(look, lambda: 0.1, every=0.02).guard(asyncio.sleep(30)), 5.0)


CONTROL = {"<|im_start|>": 1, "<|im_end|>": 2, "</s>": 3, "[INST]": 4, "<｜end▁of▁text｜>": 5}


def fake_tokens(text: str) -> list[int]:
    """One token a character, but for control tokens, which are found wherever they stand."""
    parts = re.split("(" + "|".join(map(re.escape, CONTROL)) + ")", text)
    return [t for part in parts for t in ([CONTROL[part]] if part in CONTROL else [100 + ord(c) for c in part])]


def fake_text(tokens: Any) -> str:
    names = {number: name for name, number in CONTROL.items()}
    return "".join(names[token] if token in names else chr(token - 100) for token in tokens)


def fake_tokenizer() -> PromptTokenizer:
    async def tokenize(text: str) -> list[int]:
        return fake_tokens(text)

    async def chat(messages: Any) -> list[int]:
        return fake_tokens("".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>" for m in messages))

    async def detokenize(tokens: Any) -> str:
        return fake_text(tokens)

    return PromptTokenizer(tokenize, chat, detokenize)


HOSTILE = st.lists(st.sampled_from([*CONTROL, "<", ">", "|", "[", "]", "im_start", "s", "/", "oil ", "<data>"])).map(
    "".join
)


@given(HOSTILE | st.text(st.characters(exclude_categories=["Cs"])), HOSTILE)
def test_no_text_becomes_a_control_token_and_none_is_lost(system: str, user: str) -> None:
    tokens = asyncio.run(fake_tokenizer().chat(Prompt(system, user)))
    assert [t for t in tokens if t in CONTROL.values()] == [1, 2, 1, 2]
    assert fake_text(tokens) == f"<|im_start|>system\n{system}<|im_end|><|im_start|>user\n{user}<|im_end|>"


def test_a_template_that_refuses_a_system_message_gets_it_in_the_user_s() -> None:
    tokenizer = fake_tokenizer()

    async def picky(messages: Any) -> list[int]:
        if messages[0]["role"] == "system":
            raise Refused(400, "no system role", fix="none")
        return fake_tokens("[INST]" + messages[0]["content"])

    tokenizer._tokenize_chat = picky
    assert fake_text(asyncio.run(tokenizer.chat(Prompt("be brief", "[INST]hello")))) == "[INST]be brief\n\n[INST]hello"


def test_a_model_without_a_chat_template_is_a_backend_error() -> None:
    tokenizer = fake_tokenizer()

    async def none(messages: Any) -> list[int]:
        raise Refused(400, "no template", fix="none")

    tokenizer._tokenize_chat = none
    with pytest.raises(BackendError, match="chat template cannot be used"):
        asyncio.run(tokenizer.chat(Prompt("s", "u")))


PROSE = Prose(("E1", "E7"), ("S&P 500", "10-year"))


@given(st.from_regex(prose_regex(PROSE).replace(r"\/", "/"), fullmatch=True))
def test_what_the_server_s_grammar_lets_through_is_prose(text: str) -> None:
    assert PROSE.allows(text.removesuffix('"'))


def test_weights_digests_differ_by_model_and_adapter_and_follow_an_export_s_manifest(tmp_path: Any) -> None:
    base, tuned = Served("m", str(tmp_path), None, 2048), Served("tuned", "/adapters/1", "m", 0)
    before = weights_digest(base, None)
    assert len({before, weights_digest(tuned, base), weights_digest(Served("m", "/elsewhere", None, 2048), None)}) == 3
    (tmp_path / "finllm.json").write_text(json.dumps({"weights_sha256": "abc"}))
    exported = weights_digest(base, None)
    assert exported != before
    assert weights_digest(Served("other name", str(tmp_path), None, 4096), None) == exported


def test_a_cancelled_caller_cancels_the_work_and_a_closed_thread_says_so() -> None:
    thread = LoopThread("work")
    ended = asyncio.run(_cancelled_call(thread))
    assert ended == ["cancelled"]
    thread.close(asyncio.sleep(0))
    thread.close(asyncio.sleep(0))
    with pytest.raises(BackendError, match="'work' is closed"):
        asyncio.run(thread.call(asyncio.sleep(0)))


async def _cancelled_call(thread: LoopThread) -> list[str]:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    call = asyncio.create_task(thread.call(work()))
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await thread.call(asyncio.sleep(0))
    return ended

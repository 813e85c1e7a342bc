"""Any server that speaks OpenAI's chat protocol, over real HTTP: the real small model, and servers that misbehave."""

from __future__ import annotations

import asyncio
import datetime as dt
import email.utils
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from finllm.agents.sanity_checker import SourceCheck
from finllm.errors import BackendError
from finllm.scheduler.backends import BackendLost, Generation, Request, TokenLimitReached
from finllm.scheduler.backends.http_client import Patience, Refused, retry_after
from finllm.scheduler.backends.joined import Joined
from finllm.scheduler.backends.openai_compatible import OpenAIBackend, connect
from finllm.scheduler.backends.openai_wire import Token, value_scores
from finllm.scheduler.backends.sheet import sheet, together
from finllm.scheduler.decoding.prose import Prose
from finllm.scheduler.decoding.template import Choose, Force, Write, compile_template
from finllm.scheduler.placement.task import Prompt
from tests.conftest import bounded
from tests.scheduler.chat_server import MODEL, ChatServer, real_answers, serving

TEMPLATE = compile_template(SourceCheck, {"because": "AB"}, count=1)
REQUEST = Request(Prompt("You are a risk analyst.", "A: Hormuz is closed.\nB: Oil rose."), TEMPLATE, None, 0)
SAYS = {"verdict": {"doubtful": 0.7, "credible": 0.2, "contradicted": 0.06, "coordinated": 0.03, "injected": 0.01}}
HASTY = Patience(connect=0.5, reply=2.0, call=2.0, backoff=0.001)
NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
Opened = Callable[..., OpenAIBackend]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(ChatServer(say=SAYS)) as made:
        yield made


@pytest.fixture
def opened() -> Iterator[Opened]:
    backends: list[OpenAIBackend] = []

    def make(server: ChatServer, patience: Patience = HASTY, key: str | None = None, **fields: Any) -> OpenAIBackend:
        node = Joined.model_validate({"name": "mine", "kind": "openai", "url": f"{server.url}/v1/", **fields})
        backends.append(connect(node, SecretStr(key) if key else None, patience=patience))
        return backends[-1]

    yield make
    for backend in backends:
        backend.close()


def ask(backend: OpenAIBackend, **changes: Any) -> Generation:
    return bounded(backend.generate(replace(REQUEST, **changes)))


def test_each_choice_is_scored_by_the_server_s_own_log_probabilities(server: ChatServer, opened: Opened) -> None:
    backend = opened(server)
    done = ask(backend)
    assert SourceCheck.model_validate_json(done.text).verdict == "doubtful"
    assert done.choices["verdict"] == pytest.approx(SAYS["verdict"])
    assert (backend.offer.scores, backend.offer.votes, done.votes) == ("logprobs", 0, 0)
    assert (backend.offer.kind, backend.offer.where, backend.offer.stronger) == ("openai", "remote", True)
    assert done.prompt_tokens > 0
    questions = [body["response_format"]["json_schema"]["schema"] for body in server.asked[1:]]
    assert all(len(one["properties"]) == 1 for one in questions), "each choice is asked on its own, as on other tiers"


def test_without_log_probabilities_answers_are_counted_and_that_is_said(server: ChatServer, opened: Opened) -> None:
    server.logprobs = False
    backend = opened(server, votes=10)
    done = ask(backend)
    assert done.choices["verdict"] == pytest.approx(
        {"doubtful": 0.7, "credible": 0.2, "contradicted": 0.1, "coordinated": 0.0, "injected": 0.0}, abs=0.11
    )
    assert sum(done.choices["verdict"].values()) == pytest.approx(1.0)
    assert (backend.offer.scores, backend.offer.votes, done.votes) == ("votes", 10, 10)
    samples = server.asked[1:]
    assert len({body["seed"] for body in samples}) == 10
    assert all(body["temperature"] == 1.0 for body in samples)
    assert ask(backend).choices == done.choices, "seeded: the same question has the same answer"


def test_a_server_that_ignores_the_schema_is_told_it_in_the_prompt(server: ChatServer, opened: Opened) -> None:
    server.schema = False
    done = ask(opened(server))
    assert done.choices["verdict"] == pytest.approx(SAYS["verdict"])
    assert "response_format" not in server.asked[-1]
    assert "JSON Schema" in server.asked[-1]["messages"][-1]["content"]


def test_an_invalid_answer_is_asked_once_more_with_what_was_wrong(server: ChatServer, opened: Opened) -> None:
    backend, template = opened(server), (Force('{"verdict":"'), Choose("verdict", tuple(SAYS["verdict"])), Force('"}'))
    server.outside = 1
    assert ask(backend, template=template).choices["verdict"] == pytest.approx(SAYS["verdict"])
    assert "That is not valid: it is no JSON" in server.asked[-1]["messages"][-1]["content"]
    server.outside = 2
    with pytest.raises(BackendError, match="answered outside the schema twice"):
        ask(backend, template=template)


@pytest.mark.parametrize("refuses", [("logprobs",), ("response_format",), ("logprobs", "response_format")])
def test_what_a_server_refuses_to_be_asked_for_is_left_out(
    refuses: tuple[str, ...], server: ChatServer, opened: Opened
) -> None:
    server.refuses, server.schema = refuses, "response_format" not in refuses
    backend = opened(server, votes=5)
    assert backend.offer.scores == ("votes" if "logprobs" in refuses else "logprobs")
    assert SourceCheck.model_validate_json(ask(backend).text).verdict == "doubtful"


def test_tokens_that_are_not_told_are_reckoned_and_the_offer_says_so(server: ChatServer, opened: Opened) -> None:
    server.usage = False
    backend = opened(server)
    assert not backend.offer.counts_tokens
    assert ask(backend).prompt_tokens > 10


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_server_that_asks_to_be_left_alone_is(form: str, server: ChatServer, opened: Opened) -> None:
    backend = opened(server, replace(HASTY, reply=10.0, call=10.0))
    when = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2)
    server.busy, server.retry_after = 1, "1" if form == "seconds" else email.utils.format_datetime(when, usegmt=True)
    started = time.monotonic()
    ask(backend)
    assert time.monotonic() - started >= 0.9


def test_a_server_that_asks_for_an_hour_is_not_waited_for(server: ChatServer, opened: Opened) -> None:
    backend = opened(server)
    server.busy, server.retry_after = 9, "3600"
    with pytest.raises(Refused, match=r"429: slow down; ask again in 3600 s, as it says"):
        ask(backend)
    server.busy, server.retry_after = 99, None
    with pytest.raises(Refused, match="429: slow down"):
        ask(backend)


@given(st.floats(0, 1e6) | st.integers(0, 10**6))
def test_both_forms_of_retry_after_are_read(seconds: float) -> None:
    assert retry_after(str(seconds), NOW) == pytest.approx(seconds)
    date = email.utils.format_datetime(NOW + dt.timedelta(seconds=int(seconds)), usegmt=True)
    assert retry_after(date, NOW) == int(seconds)


@pytest.mark.parametrize("value", [None, "", "soon", "nan", "inf", "-", "32 Foo 2026"])
def test_a_retry_after_that_says_nothing_is_none(value: str | None) -> None:
    assert retry_after(value, NOW) is None


def completion(text: Any = '{"verdict":"doubtful"}', **choice: Any) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}, **choice}]}).encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"[]", b"null", b"<html>", b"{}", b'{"choices": []}', completion(""), completion(None), completion(7),
        completion(logprobs={"content": [{"token": "x", "logprob": float("nan")}]}),
        completion(logprobs={"content": [{"token": "x", "logprob": "NaN"}]}),
        completion(logprobs={"content": [{"token": "x", "logprob": 0.5}]}),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_a_backend_error_with_a_mend(
    raw: bytes, server: ChatServer, opened: Opened
) -> None:  # fmt: skip
    backend = opened(server)
    server.raw = raw
    with pytest.raises(BackendError, match="did not answer as OpenAI-compatible servers do") as error:
        ask(backend)
    assert "/v1" in error.value.fix


def test_an_answer_that_drips_ends_in_time(server: ChatServer, opened: Opened) -> None:
    backend = opened(server)
    server.drip = 0.2
    started = time.monotonic()
    with pytest.raises(BackendError, match="gave no whole answer in time"):
        ask(backend)
    assert time.monotonic() - started < 20


def test_a_connection_that_breaks_in_an_answer_is_lost_and_not_sent_again(server: ChatServer, opened: Opened) -> None:
    backend = opened(server)
    server.cut, before = True, len(server.asked)
    template = (Force('{"verdict":"'), Choose("verdict", tuple(SAYS["verdict"])), Force('"}'))
    with pytest.raises(BackendLost, match="broke"):
        ask(backend, template=template)
    assert len(server.asked) == before + 1


def test_a_server_that_is_not_there_or_serves_something_else_is_named(server: ChatServer, opened: Opened) -> None:
    with pytest.raises(BackendError, match=r"no OpenAI-compatible server answers at http://127.0.0.1:9"):
        opened(ChatServer(url="http://127.0.0.1:9"))
    with pytest.raises(BackendError, match=f"does not serve 'other': it serves '{MODEL}'; name one of them"):
        opened(server, model="other")


def test_the_key_is_sent_and_shown_nowhere_though_the_server_says_it(server: ChatServer, opened: Opened) -> None:
    server.key = "geheim"
    ask(opened(server, key="geheim"))
    with pytest.raises(Refused) as error:
        opened(server, key="verraten")
    assert "verraten" not in f"{error.value} {error.value!r}"
    assert error.value.status == 401


def test_the_token_limit_holds(server: ChatServer, opened: Opened) -> None:
    with pytest.raises(TokenLimitReached):
        ask(opened(server), token_limit=20)


def test_a_cancelled_call_leaves_and_a_closed_backend_says_so(server: ChatServer, opened: Opened) -> None:
    backend = opened(server)
    server.drip = 0.05

    async def cancel() -> None:
        call = asyncio.create_task(backend.generate(REQUEST))
        while len(server.asked) < 2:
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    bounded(cancel())
    backend.close()
    with pytest.raises(BackendError, match="is closed"):
        ask(backend)


def test_prose_keeps_to_its_grammar(server: ChatServer, opened: Opened) -> None:
    template = (Force('{"why":"'), Write("why", 24, Prose(("E1",), ())), Force('"}'))
    assert json.loads(ask(opened(server), template=template).text) == {"why": "words alone"}


def test_other_weights_modes_and_servers_have_other_digests(server: ChatServer, opened: Opened) -> None:
    first = opened(server).offer
    server.logprobs = False
    voted = opened(server).offer
    with serving(ChatServer(say=SAYS)) as other:
        elsewhere = opened(other).offer
    assert len({first.weights_sha256, voted.weights_sha256, elsewhere.weights_sha256}) == 3


LIKELY = st.dictionaries(st.sampled_from(["up", "down", "flat"]), st.floats(1e-6, 1.0), min_size=1)


@given(LIKELY, st.sampled_from(["", '"', ':"', '":"']), st.sampled_from(["", '"', '"}']))
def test_scores_are_those_at_the_choice_however_its_token_is_cut(
    likely: dict[str, float], lead: str, tail: str
) -> None:
    total = sum(likely.values())
    shares = {value: p / total for value, p in likely.items()}
    chosen = max(shares, key=lambda value: shares[value])
    before = '{"oil":"'.removesuffix(lead) if lead else '{"oil":"'
    tokens = [Token(before, {}), Token(lead + chosen + tail, {lead + v + tail: p for v, p in shares.items()})]
    found = value_scores(tokens, len('{"oil":"'), ("up", "down", "flat"))
    for value, score in zip(("up", "down", "flat"), found, strict=True):
        assert score <= 0.0
        if value in shares:
            assert score == pytest.approx(math.log(shares[value]))


def test_values_that_share_a_token_are_told_apart_by_the_next() -> None:
    tokens = [Token('{"x":"', {}), Token("up", {"up": 0.8, "calm": 0.2}), Token("wind", {"wind": 0.75, "ward": 0.25})]
    found = [math.exp(score) for score in value_scores(tokens, 6, ("upward", "upwind", "calm"))]
    assert found == pytest.approx([0.2, 0.6, 0.2])


def test_a_sheet_reads_what_it_asks_for_and_nothing_else() -> None:
    one = sheet('{"OIL":{"direction":"up","size":"', "OIL.size", ("small", "large"), 1)
    assert one.schema["properties"]["OIL"]["properties"]["direction"] == {"const": "up"}
    assert list(one.read('{"OIL": {"direction": "up", "size": "large"}}').values()) == ["large"]
    for wrong in (
        '{"OIL": {"direction": "down", "size": "large"}}', '{"OIL": {"size": "large"}}', '{"OIL": []}', "x",
        '{"OIL": {"direction": "up", "size": "huge"}}', '{"OIL": {"direction": "up", "size": 3}}',
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"no JSON|no object|not one of|not 'up'"):
            one.read(wrong)
    other = sheet('{"GOLD":{"direction":"', "GOLD.direction", ("up", "down"), 2)
    (both,) = together([one, other])
    assert set(both.skeleton) == {"OIL", "GOLD"}
    assert len(together([one, sheet('{"OIL":{"direction":"down","size":"', "y", ("a",), 3)])) == 2


def test_the_real_model_answers_typed_by_its_own_probabilities_and_by_votes(edge_weights: Path, opened: Opened) -> None:
    answer, free = real_answers(edge_weights)
    template = (Force('{"oil":"'), Choose("oil", ("up", "down")), Force('"}'))
    prompt = Prompt("You read news about markets.", "Oil rose by a third. Did oil go up or down?")
    with serving(ChatServer(answer=answer)) as server:
        patient = Patience(call=60.0)
        backend = opened(server, patient)
        scored = ask(backend, template=template, prompt=prompt).choices["oil"]
        assert backend.offer.scores == "logprobs"
        assert sum(scored.values()) == pytest.approx(1.0)
        assert min(scored.values()) > 0.0

        def silent(body: dict[str, Any]) -> dict[str, Any]:
            return answer({name: one for name, one in body.items() if name not in ("logprobs", "top_logprobs")})

        server.answer = silent
        voting = opened(server, patient, votes=15)
        voted = ask(voting, template=template, prompt=prompt)
        assert (voting.offer.scores, voted.votes) == ("votes", 15)
        assert sum(voted.choices["oil"].values()) == pytest.approx(1.0)
        assert voted.choices["oil"]["up"] == pytest.approx(scored["up"], abs=0.4)
    free()

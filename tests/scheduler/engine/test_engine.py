"""The batching engine on the real model: nothing leaks, nobody starves, nobody hears another's text."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import gguf
import numpy as np
import pytest

from finllm.agents.narrative import Asked
from finllm.scheduler.decoding.template import Choose, Force, Template, Write, compile_template, part_of
from finllm.scheduler.engine.job import Finished, Job, Work
from finllm.scheduler.engine.loop import Loop
from finllm.scheduler.engine.native import Native, Run
from finllm.scheduler.placement.task import Prompt
from tests.scheduler.engine.engines import JUDGES, NOISE, SAYS, SYSTEM, Result


class Desk:
    """A loop with the answers it gave, driven step by step."""

    def __init__(self, native: Native, *, context: int = 512, store: int = 32 << 20) -> None:
        self.native = native
        self.loop = Loop(native, context=context, store=store, turn=nullcontext())
        self.answers: dict[str, Result] = {}
        self.said: dict[str, list[int]] = {}

    def ask(self, name: str, user: str, template: Template = SAYS, **how: object) -> Job:
        def done(result: Result) -> None:
            assert name not in self.answers, "answered twice"
            self.answers[name] = result

        self.said[name] = []
        work = Work(Prompt(SYSTEM, user), template, **how)  # pyright: ignore[reportArgumentType]
        job = Job(work, done, lambda _: self.said[name].append(self.loop.steps))
        self.loop.add(job)
        return job

    def run(self, most: int = 3000) -> None:
        for _ in range(most):
            if self.loop.idle:
                return
            self.loop.step()
        raise AssertionError("the loop does not come to rest")

    def finished(self, name: str) -> Finished:
        answer = self.answers[name]
        assert isinstance(answer, Finished), answer
        return answer

    def assert_nothing_left(self) -> None:
        assert self.loop.idle
        used = [s for s in (*range(self.native.sequences), *self.native.branches) if self.native.length(s)]
        assert used == []
        assert self.loop._cells.free == self.native.cells
        full = [Run(0, start, [1] * 128, scored=False) for start in range(0, self.native.cells, 128)]
        for run in full:
            self.native.decode([run])
        self.native.forget(0)
        self.native.clear()


@pytest.fixture(scope="module")
def native(edge_weights: Path) -> Iterator[Native]:
    loaded = Native(edge_weights, threads=1, cells=768, sequences=6)
    yield loaded
    loaded.close()


@pytest.fixture
def desk(native: Native) -> Desk:
    return Desk(native)


def test_mixed_requests_with_cancels_and_preemptions_leak_nothing_and_answer_once(desk: Desk) -> None:
    dice = random.Random(7)
    jobs: list[Job] = []
    for i in range(36):
        template = SAYS if i % 3 else JUDGES
        background = dice.random() < 0.4
        jobs.append(desk.ask(str(i), f"Case {i}: oil rises. " * dice.randint(1, 9), template, background=background))
        for _ in range(dice.randint(0, 3)):
            desk.loop.step()
        waiting = [job for i, job in enumerate(jobs) if str(i) not in desk.answers]
        if waiting and dice.random() < 0.2:
            dice.choice(waiting).stop.set()
    desk.run()
    assert set(desk.answers) == {str(i) for i in range(36)}
    assert sum("abandoned" in str(answer) for answer in desk.answers.values()) >= 4
    for answer in desk.answers.values():
        assert isinstance(answer, Finished) or "abandoned" in str(answer)
    assert sum(isinstance(answer, Finished) for answer in desk.answers.values()) > 20
    desk.assert_nothing_left()


def test_a_reading_is_asked_in_two_steps_and_each_field_as_if_alone(desk: Desk) -> None:
    user = "Iran closes the strait to all tankers; crude leaps and shares fall."
    template = compile_template(Asked, {"because": "ABC"})
    desk.ask("whole", user, template)
    desk.run()
    assert desk.loop.steps == 2
    whole = desk.finished("whole").filled.choices
    for field in ("event", "stance", "factors.OIL_WTI.direction", "factors.GOLD.direction", "because"):
        desk.ask(field, user, part_of(template, [field]))
        desk.run()
        alone = desk.finished(field).filled.choices[field]
        assert {v: math.log(p) for v, p in alone.items()} == pytest.approx(
            {v: math.log(p) for v, p in whole[field].items()}, abs=NOISE
        ), field
    Asked.model_validate_json(desk.finished("whole").filled.text)
    desk.assert_nothing_left()


@pytest.mark.parametrize(("fields", "prompt"), [(120, 1), (60, 60)], ids=["more than a step holds", "few free cells"])
def test_many_fields_take_several_steps_and_lose_nothing(desk: Desk, fields: int, prompt: int) -> None:
    """More branches than one step has sequences for, or than the cells behind a long prompt hold."""
    steps = [Choose(f"f{i}", ("up", "down"), stem=f'question number {i} of many":"') for i in range(fields)]
    desk.ask("many", "Crude leaps. " * prompt, (Force('{"'), *steps), background=True)
    for i in range(3):
        desk.loop.step()
        desk.ask(f"short {i}", "Gold?", JUDGES)
    desk.run()
    many = desk.finished("many").filled.choices
    assert set(many) == {f"f{i}" for i in range(fields)}
    alone = (Force('{"'), steps[fields - 1])
    desk.ask("last", "Crude leaps. " * prompt, alone)
    desk.run()
    last = desk.finished("last").filled.choices[f"f{fields - 1}"]
    assert math.log(last["up"]) == pytest.approx(math.log(many[f"f{fields - 1}"]["up"]), abs=NOISE)
    desk.assert_nothing_left()


def test_with_one_slot_the_same_judgement_has_the_same_bits(native: Native) -> None:
    desk = Desk(native, store=0)
    template = compile_template(Asked, {"because": "ABC"})
    for name in ("first", "again"):
        desk.ask(name, "A bank in Ohio loses a third of its deposits.", template)
        desk.run()
    assert desk.finished("first").filled == desk.finished("again").filled


def test_background_work_that_was_preempted_comes_back_as_it_was(native: Native) -> None:
    cases = [f"Background case {i}: a bank fails." for i in range(3)]
    quiet = Desk(native, store=0)
    for case in cases:
        quiet.ask(case, case, (Write("text", 30, None),), background=True)
    quiet.run()
    disturbed = Desk(native, store=0)
    for case in cases:
        disturbed.ask(case, case, (Write("text", 30, None),), background=True)
    for step in range(12):
        disturbed.loop.step()
        if step >= 4:
            disturbed.ask(f"urgent {step}", f"Urgent case {step}: rates rise. " * 6, rank=5.0)
    disturbed.run()
    for case in cases:
        assert disturbed.finished(case).output_tokens == quiet.finished(case).output_tokens > 2
        assert disturbed.finished(case).filled.text[:20] == quiet.finished(case).filled.text[:20]
    disturbed.assert_nothing_left()


def test_saved_cells_are_put_back_bit_for_bit(native: Native) -> None:
    tokens = native.vocabulary.tokenize("Tankers wait outside the strait, and freight rates rise day by day.")
    native.decode([Run(0, 0, tokens[:-1], scored=False)])
    saved = native.save(0)
    (row,) = native.decode([Run(0, len(tokens) - 1, tokens[-1:], scored=True)])
    before = native.logits(row).copy()
    native.forget(0)
    native.load(3, saved)
    (row,) = native.decode([Run(3, len(tokens) - 1, tokens[-1:], scored=True)])
    assert np.array_equal(before, native.logits(row))
    native.forget(3)
    native.clear()


def test_the_number_of_threads_changes_no_bit(edge_weights: Path) -> None:
    native = Native(edge_weights, threads=2, cells=512, sequences=2)
    dice = random.Random(0)
    prompt = [dice.randrange(100, 40_000) for _ in range(300)]
    found: list[bytes] = []
    for threads in (1, 2):
        native.use(threads)
        native.clear()
        for run in (Run(0, 0, prompt[:200], scored=True), Run(0, 200, prompt[200:], scored=True)):
            found.append(native.logits(native.decode([run])[0]).tobytes())
    native.close()
    assert found[:2] == found[2:]


def test_an_urgent_request_speaks_at_once_beside_background_streams(desk: Desk) -> None:
    for i in range(5):
        desk.ask(f"b{i}", f"Background {i}.", (Write("text", 60, None),), background=True)
    for _ in range(8):
        desk.loop.step()
    asked_at = desk.loop.steps
    desk.ask("urgent", "The strait is closed. What now? " * 20, rank=9.0)
    prefill_steps = 1
    desk.run()
    assert desk.said["urgent"][0] - asked_at <= prefill_steps + 2
    for i in range(5):
        assert desk.finished(f"b{i}").output_tokens > 10


def test_the_highest_rank_goes_first_and_equals_in_the_order_they_came(desk: Desk) -> None:
    order: list[str] = []
    for i in range(6):
        desk.ask(f"filler {i}", f"Filler {i}.", (Write("text", 20, None),))
    desk.loop.step()
    for name, rank in (("low", 0.0), ("first", 5.0), ("second", 5.0)):
        desk.ask(name, f"{name}: rates rise.", JUDGES, rank=rank)
    while not desk.loop.idle:
        desk.loop.step()
        order += [name for name in desk.answers if name not in order]
    assert [name for name in order if not name.startswith("filler")] == ["first", "second", "low"]


def test_a_request_that_finds_no_room_does_not_keep_back_one_that_does(desk: Desk) -> None:
    desk.ask("long", "Oil. " * 170, (Write("text", 40, None),))
    desk.loop.step()
    desk.ask("also long", "Gas. " * 170, (Write("text", 40, None),))
    desk.ask("short", "Gold?", JUDGES)
    for _ in range(12):
        desk.loop.step()
    assert "short" in desk.answers
    desk.run()
    desk.finished("also long")


def test_requests_with_a_common_beginning_prefill_it_once(desk: Desk) -> None:
    for i in range(6):
        desk.ask(str(i), f"{'Tankers wait outside the strait. ' * 8} Case {i}.", JUDGES)
    desk.run()
    cached = sorted(desk.finished(str(i)).cached_tokens for i in range(6))
    assert cached[0] == 0
    assert cached[1] > 0.75 * desk.finished("1").prompt_tokens


def test_a_prompt_that_never_fits_and_a_template_without_questions_are_answered_at_once(desk: Desk) -> None:
    desk.ask("long", "oil " * 600)
    desk.ask("nothing to ask", "x", (Force("{}"),))
    assert "tokens of the context; shorten the sources" in str(desk.answers["long"])
    assert desk.finished("nothing to ask").filled.text == "{}"
    assert desk.loop.idle


def test_each_answer_follows_its_own_prompt(desk: Desk) -> None:
    words = ["apple", "tiger", "river", "candle", "violin", "rocket"]
    for word in words:
        desk.ask(word, f"Repeat this word and nothing else: {word}", (Write("text", 6, None),))
    desk.run()
    for word in words:
        said = desk.finished(word).filled.text.lower()
        assert not any(other in said for other in words if other != word), said


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter that turns the model's first layers into something else."""
    path = tmp_path_factory.mktemp("adapter") / "adapter.gguf"
    random_numbers = np.random.default_rng(3)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    for layer in range(8):
        name = f"blk.{layer}.ffn_up.weight"
        writer.add_tensor(f"{name}.lora_a", random_numbers.normal(0, 0.4, (4, 576)).astype(np.float32))
        writer.add_tensor(f"{name}.lora_b", random_numbers.normal(0, 0.4, (1536, 4)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_adapters_are_swapped_between_requests_and_their_cells_are_never_mixed(desk: Desk, adapter: Path) -> None:
    user = "The strait is closed. " * 8
    for name, path in (("a plain", None), ("b adapted", adapter), ("c plain", None), ("d adapted", adapter)):
        desk.ask(name, user, JUDGES, adapter=None if path is None else str(path))
    desk.run()
    chances = {name: desk.finished(name).filled.choices["oil"]["up"] for name in desk.answers}
    assert chances["a plain"] == pytest.approx(chances["c plain"], abs=0.05)
    assert chances["b adapted"] == pytest.approx(chances["d adapted"], abs=0.05)
    assert abs(chances["a plain"] - chances["b adapted"]) > 0.1
    desk.native.adapt(None)
    desk.assert_nothing_left()


def test_a_file_that_is_no_adapter_is_refused_and_others_are_served(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "none.gguf"
    path.write_bytes(b"GGUF")
    desk.ask("wrong", "Rates rise.", JUDGES, adapter=str(path))
    desk.ask("right", "Rates rise.", JUDGES)
    desk.run()
    assert "cannot use the adapter" in str(desk.answers["wrong"])
    desk.finished("right")

"""The channel reader on its real weights: states in sentences, spans, long and odd texts, spoilt files."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finllm.errors import BackendError
from finllm.models.channel_reader import NAMES, ChannelReader, ChannelReading
from finllm.models.embedding import EMBEDDING_NAME, Embedder
from finllm.models.encoder import installed
from finllm.models.second_opinion import HEADS
from finllm.tools.channels import Opened

SMALL = NAMES[EMBEDDING_NAME]
DULL = "The museum opens its new wing on Sunday. Tickets are sold at the door, and children enter free of charge. "
TEXTS = (
    "Tankers can no longer pass the strait and oil exports have been cut off.",
    "The Federal Reserve unexpectedly cuts rates by half a point.",
    "Depositors queue outside the bank, which regulators may have to close.",
    "The museum opens its new wing on Sunday.",
)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> ChannelReader:
    return ChannelReader(tmp_path_factory.mktemp("home"), Embedder(), encoder=EMBEDDING_NAME)


def _first(reading: ChannelReading) -> Opened:
    return reading.opened[0]


def _same(one: ChannelReading, other: ChannelReading) -> None:
    assert [found.channel for found in one.opened] == [found.channel for found in other.opened]
    for found, again in zip(one.opened, other.opened, strict=True):
        assert found.probability == pytest.approx(again.probability, abs=1e-3)
        assert (found.start, found.end) == (again.start, again.end)
    for field, told in one.fields.items():
        assert told == pytest.approx(other.fields[field], abs=1e-3)


def test_what_happens_opens_its_channel_and_what_is_dull_opens_none(reader: ChannelReader) -> None:
    oil, fed, bank, museum = reader.read(TEXTS)
    assert (_first(oil).channel, _first(oil).state) == ("crude_supply_lost", "happens")
    assert _first(fed).channel == "policy_easier"
    assert _first(bank).channel == "banking_stress"
    assert all(found.probability < reader.card.threshold for found in museum.opened)
    assert max(fed.fields["stance"], key=lambda one: fed.fields["stance"][one]) == "dovish"
    assert max(museum.fields["event"], key=lambda one: museum.fields["event"][one]) == "none"


def test_states_are_told_apart(reader: ChannelReader) -> None:
    feared, denied = reader.read((
        "If the talks fail, the cartel may cut output sharply.",
        "The feared default did not come: the coupon was paid on time.",
    ))  # fmt: skip
    assert (_first(feared).channel, _first(feared).state) == ("crude_supply_cut_by_producers", "feared")
    assert {one.channel: one.state for one in denied.opened}["credit_stress"] == "denied"


def test_a_batch_reads_as_each_text_alone_does(reader: ChannelReader) -> None:
    for text, together in zip(TEXTS, reader.read(TEXTS), strict=True):
        _same(together, reader.read([text])[0])


def test_threads_get_what_they_asked_for(reader: ChannelReader) -> None:
    alone = [reader.read([text])[0] for text in TEXTS]
    with ThreadPoolExecutor(4) as pool:
        for together, one in zip(pool.map(lambda text: reader.read([text])[0], TEXTS * 2), alone * 2, strict=True):
            _same(together, one)


def test_the_span_is_the_sentence_that_opens_the_channel_in_a_text_of_any_length(reader: ChannelReader) -> None:
    for before in (1, 12):
        text = DULL * before + TEXTS[0] + " " + DULL
        found = _first(reader.read([text])[0])
        assert found.channel == "crude_supply_lost"
        assert text[found.start : found.end] == TEXTS[0]


@pytest.mark.parametrize("text", ["", " \n\t", "…!?", "\x00\x01", "()[]<>" * 3000])
def test_a_text_without_a_word_opens_nothing(reader: ChannelReader, text: str) -> None:
    reading = reader.read([text])[0]
    assert reading.opened == ()
    assert all(sum(told.values()) == pytest.approx(1) for told in reading.fields.values())


@pytest.mark.parametrize(
    "text",
    [
        "[SEP] [CLS] [PAD] <s></s> oil is banned [MASK]",
        "a" * 120_000,
        "oil " * 30_000,
        "Ölexporte eingestellt. 石油の輸出が停止した。 توقفت صادرات النفط",
        "\ud83d\udea2 \u202eoil\u202c tankers \u0301\u0301\u0301 stopped",
        "one\n" * 5000,
    ],
)
def test_hostile_and_foreign_texts_are_read_within_bounds(reader: ChannelReader, text: str) -> None:
    reading = reader.read([text, TEXTS[0]])
    for found in reading[0].opened:
        assert 0 <= found.start < found.end <= len(text)
        assert 0 <= found.probability <= 1
    _same(reading[1], reader.read([TEXTS[0]])[0])


def test_a_spoilt_card_or_another_encoder_is_refused(tmp_path: Path) -> None:
    for file in HEADS.glob(f"{SMALL}.*"):
        shutil.copy(file, tmp_path)
    weights = tmp_path / f"{SMALL}.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BackendError, match="not the one of its card"):
        ChannelReader(tmp_path, Embedder(), tmp_path, EMBEDDING_NAME).read(["text"])
    weights.write_bytes(content)
    card = tmp_path / f"{SMALL}.json"
    good = card.read_text()
    card.write_text(good.replace(Embedder().digest, "0" * 64))
    with pytest.raises(BackendError, match="another encoder"):
        ChannelReader(tmp_path, Embedder(), tmp_path, EMBEDDING_NAME).read(["text"])
    card.write_text(good.replace('"policy_tighter"', '"no_such_channel"'))
    with pytest.raises(BackendError, match="that the table has not"):
        ChannelReader(tmp_path, Embedder(), tmp_path, EMBEDDING_NAME).read(["text"])
    card.write_text("{}")
    with pytest.raises(BackendError, match="cannot be read"):
        ChannelReader(tmp_path, Embedder(), tmp_path, EMBEDDING_NAME).read(["text"])


def test_the_digest_follows_from_weights_and_card(reader: ChannelReader) -> None:
    assert len(reader.digest) == 64
    assert reader.weights.stat().st_size < 5_000_000


@pytest.mark.skipif(not installed(), reason="the packages of the larger encoder are not installed")
def test_where_the_larger_encoder_cannot_be_joined_the_smaller_one_reads_and_says_why(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.write_text("no folder", encoding="utf-8")
    reader = ChannelReader(cache, Embedder())
    assert reader.encoder.name == EMBEDDING_NAME
    assert reader.note is not None
    assert "smaller encoder" in reader.note

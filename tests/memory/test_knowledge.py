from __future__ import annotations

import asyncio
import datetime as dt
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from finllm.errors import BackendError, InputError
from finllm.memory import knowledge
from finllm.memory.knowledge import KnowledgeBase
from finllm.memory.precedents import Precedent, load_precedents
from finllm.models.embedding import Embedder

EVENTS: list[dict[str, Any]] = [
    {
        "id": "gulf-invasion-1990",
        "title": "Iraq invades Kuwait",
        "start": dt.date(1990, 8, 2),
        "end": dt.date(1990, 10, 11),
        "region": "Middle East",
        "kind": "war",
        "summary": "Iraqi troops took Kuwait and its oil fields. Crude prices doubled and shares fell.",
        "factors": {"OIL_WTI": "up", "EQUITY_US": "down"},
        "source": "public record",
    },
    {
        "id": "asia-1997",
        "title": "Asian currency crisis",
        "start": dt.date(1997, 7, 2),
        "end": dt.date(1998, 1, 12),
        "region": "Asia",
        "kind": "currency crisis",
        "summary": "Thailand gave up its peg to the dollar and the devaluations spread through the region.",
        "factors": {"USD_BROAD": "up"},
        "source": "public record",
    },
    {
        "id": "lehman-2008",
        "title": "Lehman Brothers files for bankruptcy",
        "start": dt.date(2008, 9, 15),
        "end": dt.date(2008, 11, 20),
        "region": "United States",
        "kind": "banking crisis",
        "summary": "An investment bank failed, money funds broke the buck and credit spreads widened to records.",
        "factors": {"EQUITY_US": "down", "CREDIT_BAA_AAA": "up", "VIX": "up"},
        "source": "public record",
    },
    {
        "id": "downgrade-2011",
        "title": "The United States loses its top credit rating",
        "start": dt.date(2011, 8, 5),
        "end": dt.date(2011, 8, 5),
        "region": "United States",
        "kind": "sovereign rating",
        "summary": "A rating agency cut the country's rating after a dispute over the debt ceiling. Yields fell.",
        "factors": {"RATE_US_10Y": "down", "GOLD": "up"},
        "source": "public record",
    },
    {
        "id": "pandemic-2020",
        "title": "Pandemic shuts economies down",
        "start": dt.date(2020, 2, 20),
        "end": dt.date(2020, 3, 23),
        "region": "World",
        "kind": "pandemic",
        "summary": "Lockdowns spread over the world, travel stopped and demand for fuel collapsed.",
        "factors": {"EQUITY_US": "down", "OIL_WTI": "down", "VIX": "up"},
        "source": "public record",
    },
]
LATER = dt.date(2024, 1, 1)


def write(path: Path, events: Any = EVENTS) -> Path:
    path.write_text(yaml.safe_dump(events), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def embedder(shared_embedder: Embedder) -> Embedder:
    return shared_embedder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder) -> Iterator[KnowledgeBase]:
    """A knowledge base that the tests of this module only read."""
    folder = tmp_path_factory.mktemp("knowledge")
    base = KnowledgeBase(folder / "store", embedder, write(folder / "precedents.yaml"))
    yield base
    base.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "precedents.yaml")


def ids(base: KnowledgeBase, text: str, as_of: dt.date = LATER, **options: Any) -> list[str]:
    return [item.precedent.id for item in base.retrieve(text, as_of, **options)]


def test_the_precedent_of_like_meaning_comes_first(shared: KnowledgeBase) -> None:
    assert ids(shared, "A navy closes the strait through which Gulf oil is shipped")[0] == "gulf-invasion-1990"
    assert ids(shared, "A large bank collapses and lenders stop trusting each other")[0] == "lehman-2008"
    assert ids(shared, "A new virus closes factories and schools")[0] == "pandemic-2020"


def test_answers_are_ordered_and_bounded(shared: KnowledgeBase) -> None:
    found = shared.retrieve("a bank collapses", LATER, k=3, min_similarity=-1)
    assert len(found) == 3
    assert [item.similarity for item in found] == sorted((item.similarity for item in found), reverse=True)
    assert all(-1 <= item.similarity <= 1 for item in found)


def test_nothing_is_returned_where_nothing_is_alike(shared: KnowledgeBase) -> None:
    assert shared.retrieve("A recipe for lemon cake with poppy seeds", LATER) == []
    assert shared.retrieve("   ", LATER) == []
    assert shared.retrieve("a bank collapses", LATER, k=0) == []


@given(
    as_of=st.dates(dt.date(1985, 1, 1), dt.date(2025, 1, 1))
    | st.sampled_from([event["end"] + dt.timedelta(days=d) for event in EVENTS for d in (-1, 0, 1)]),
    text=st.sampled_from([event["summary"] for event in EVENTS] + ["war", "crash of 2020", "as_of 2030-01-01"]),
    k=st.integers(1, 8),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_no_precedent_from_after_as_of_is_ever_returned(
    shared: KnowledgeBase, as_of: dt.date, text: str, k: int
) -> None:
    found = shared.retrieve(text, as_of, k=k, min_similarity=-1)
    over = [event for event in EVENTS if event["end"] <= as_of]
    assert all(item.precedent.end <= as_of for item in found)
    assert len(found) == min(k, len(over))


def test_the_day_an_event_ends_is_the_first_on_which_it_is_known(shared: KnowledgeBase) -> None:
    end = dt.date(2008, 11, 20)
    assert "lehman-2008" in ids(shared, "a bank collapses", end)
    assert "lehman-2008" not in ids(shared, "a bank collapses", end - dt.timedelta(days=1), min_similarity=-1)


def test_dates_tampered_with_in_the_store_do_not_let_the_future_in(
    tmp_path: Path, file: Path, embedder: Embedder
) -> None:
    base = KnowledgeBase(tmp_path / "kb", embedder, file)
    base.open()
    base._collection.update(ids=["pandemic-2020"], metadatas=[{"end": 19000101}])
    as_of = dt.date(2012, 1, 1)
    assert "pandemic-2020" not in ids(base, "pandemic lockdowns", as_of, min_similarity=-1)
    assert "rebuilt" in base.notes[0]
    base.close()


def test_a_second_opening_fills_nothing_again(tmp_path: Path, file: Path, embedder: Embedder) -> None:
    first = KnowledgeBase(tmp_path / "kb", embedder, file)
    before = first.retrieve("a bank collapses", LATER)
    first.close()

    class OnlyQueries:
        digest = embedder.digest

        def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            assert list(texts) == ["a bank collapses"]
            return embedder.embed(texts)

    second = KnowledgeBase(tmp_path / "kb", OnlyQueries(), file)
    assert second.retrieve("a bank collapses", LATER) == before
    assert second.notes == ()
    second.close()


class AnotherMachines:
    """Reads as another machine does, and another batch: the last digits differ."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.digest = embedder.digest

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        found = self._embedder.embed(texts)
        off = np.random.default_rng(len(texts)).normal(0.0, 2e-7, found.shape)
        return (found + off).astype(np.float32)


def test_a_similarity_is_the_same_from_a_store_whose_last_digits_differ(
    tmp_path: Path, file: Path, embedder: Embedder
) -> None:
    """A run's state holds it: a replay on another store, or machine, would else be refused."""
    here = KnowledgeBase(tmp_path / "here", embedder, file)
    there = KnowledgeBase(tmp_path / "there", AnotherMachines(embedder), file)
    for event in EVENTS:
        assert there.retrieve(event["title"], LATER, k=5) == here.retrieve(event["title"], LATER, k=5)
    here.close()
    there.close()


def test_a_store_is_filled_text_by_text_and_one_filled_otherwise_is_not_used(
    tmp_path: Path, file: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    class Watched:
        digest = embedder.digest

        def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            sizes.append(len(texts))
            return embedder.embed(texts)

    with monkeypatch.context() as patch:
        patch.setattr(knowledge, "WAY", "batch-6")
        older = KnowledgeBase(tmp_path / "kb", embedder, file)
        older.open()
        older.close()
    base = KnowledgeBase(tmp_path / "kb", Watched(), file)
    assert ids(base, "a bank collapses")[0] == "lehman-2008"
    assert sizes == [1] * (len(EVENTS) + 1)
    base.close()


def test_a_changed_file_is_filled_in_anew(tmp_path: Path, file: Path, embedder: Embedder) -> None:
    first = KnowledgeBase(tmp_path / "kb", embedder, file)
    assert "asia-1997" in ids(first, "a currency peg breaks")
    first.close()
    write(file, {"precedents": [event for event in EVENTS if event["id"] != "asia-1997"]})
    second = KnowledgeBase(tmp_path / "kb", embedder, file)
    assert "asia-1997" not in ids(second, "a currency peg breaks", min_similarity=-1, k=9)
    assert second.digest != first.digest
    assert len(second._client.list_collections()) == 1
    second.close()


def test_a_collection_left_half_filled_is_filled_again(tmp_path: Path, file: Path, embedder: Embedder) -> None:
    first = KnowledgeBase(tmp_path / "kb", embedder, file)
    first.open()
    first._collection.delete(ids=["lehman-2008"])
    first.close()
    second = KnowledgeBase(tmp_path / "kb", embedder, file)
    assert ids(second, "a bank collapses")[0] == "lehman-2008"
    second.close()


@pytest.mark.parametrize("damage", ["garbage", "truncated", "not a folder"])
def test_a_spoilt_store_is_rebuilt_beside_and_said(tmp_path: Path, file: Path, embedder: Embedder, damage: str) -> None:
    folder = tmp_path / "kb"
    first = KnowledgeBase(folder, embedder, file)
    right = first.retrieve("a bank collapses", LATER)
    first.close()
    store = folder / "store-0"
    database = store / "chroma.sqlite3"
    if damage == "garbage":
        database.write_bytes(b"garbage" * 5000)
    elif damage == "truncated":
        database.write_bytes(database.read_bytes()[:20_000])
    else:
        shutil.rmtree(store)
        store.write_text("a file", encoding="utf-8")
    heard: list[str] = []
    second = KnowledgeBase(folder, embedder, file, note=heard.append)
    assert second.retrieve("a bank collapses", LATER) == right
    assert len(heard) == 1
    assert "store-0" in heard[0]
    assert "store-1" in heard[0]
    assert second.notes == tuple(heard)
    second.close()
    third = KnowledgeBase(folder, embedder, file)
    assert third.retrieve("a bank collapses", LATER) == right
    assert third.notes == ()
    third.close()


def test_a_folder_that_cannot_be_written_names_the_mend(tmp_path: Path, file: Path, embedder: Embedder) -> None:
    (tmp_path / "kb").write_text("a file", encoding="utf-8")
    with pytest.raises(BackendError, match="FINLLM_HOME"):
        KnowledgeBase(tmp_path / "kb", embedder, file).retrieve("a bank collapses", LATER)


def test_it_may_be_asked_from_many_threads(shared: KnowledgeBase) -> None:
    texts = [event["title"] for event in EVENTS]

    async def ask() -> list[list[str]]:
        return await asyncio.gather(*(asyncio.to_thread(ids, shared, text) for text in texts * 4))

    assert [answer[0] for answer in asyncio.run(ask())] == [event["id"] for event in EVENTS] * 4


def test_it_opens_no_socket(
    tmp_path: Path, file: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_args: object) -> None:
        raise AssertionError("the knowledge base tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    base = KnowledgeBase(tmp_path / "kb", embedder, file)
    assert ids(base, "a bank collapses")
    base.close()
    assert capfd.readouterr() == ("", "")


def test_the_shipped_precedents_are_valid_and_found_by_their_own_titles(tmp_path: Path, embedder: Embedder) -> None:
    precedents = load_precedents()
    assert len(precedents) >= 15
    base = KnowledgeBase(tmp_path / "kb", embedder)
    missed = [p.id for p in precedents if p.id not in ids(base, p.title, dt.date(2030, 1, 1))]
    assert missed == []
    base.close()


def changed(**fields: Any) -> list[dict[str, Any]]:
    return [EVENTS[0] | fields]


@pytest.mark.parametrize(
    ("events", "named"),
    [
        (changed(end=dt.date(1990, 8, 1)), "'end' must not come before 'start'"),
        (changed(end="1990-10-11"), "0.end"),
        (changed(factors={"OIL": "up"}), "0.factors.OIL"),
        (changed(factors={"OIL_WTI": "higher"}), "0.factors.OIL_WTI"),
        (changed(factors={}), "0.factors"),
        (changed(colour="blue"), "0.colour"),
        (EVENTS[:1] * 2, "duplicate precedent id 'gulf-invasion-1990'"),
        ([], "no precedent"),
        ("text", "the list"),
    ],
)
def test_an_invalid_file_is_refused_by_name_and_field(tmp_path: Path, events: Any, named: str) -> None:
    path = write(tmp_path / "bad.yaml", events)
    with pytest.raises(InputError, match=r"bad\.yaml") as caught:
        load_precedents(path)
    assert named in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read precedents"):
        load_precedents(tmp_path / "absent.yaml")


def test_a_precedent_is_frozen() -> None:
    precedent = Precedent(**EVENTS[0])
    with pytest.raises(ValueError, match="frozen"):
        precedent.end = LATER  # pyright: ignore[reportAttributeAccessIssue]

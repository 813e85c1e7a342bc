"""The knowledge base: precedents in a Chroma store on disk, found by meaning and never from after `as_of`."""

from __future__ import annotations

import datetime as dt
import hashlib
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from finllm.errors import BackendError, lacking
from finllm.files import exclusive, sha256_of_file
from finllm.memory.precedents import PRECEDENTS_PATH, Precedent, load_precedents
from finllm.memory.vectors import Vectors

MIN_SIMILARITY = 0.2
"""Below this cosine, two texts share a language and little else (all-MiniLM-L6-v2, short news texts)."""

DIGITS = 3
"""Decimals of a similarity that are kept: the rest differs from one machine, or one batch of texts, to another."""
_NEIGHBOURS = 32
WAY = f"alone-{DIGITS}"
"""How a store's texts were read and what is kept of a similarity: what another way made is not used."""


class Embeds(Protocol):
    """Turns texts into unit vectors of shape (n_texts, n_dimensions); `digest` names the weights that do it."""

    @property
    def digest(self) -> str: ...

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]: ...


class Retrieved(BaseModel):
    """A precedent and its cosine similarity to the query, in [-1, 1]."""

    model_config = ConfigDict(frozen=True)

    precedent: Precedent
    similarity: float


class _SpoiltStoreError(Exception):
    """The store answers with something that was never put into it."""


class KnowledgeBase:
    """The precedents of one YAML file, searchable. Safe to share between threads; opened on first use.

    The store is filled on first use, each text read by itself, and filled again when the file or the embedding model
    changes: the collection's name carries the digest of both, and `WAY`. A store that cannot be read is left where it
    is and a fresh one is built beside it; `note` is told, and `notes` keeps what it was told. `vectors`: where what was
    found for a text is remembered.
    """

    def __init__(
        self,
        folder: Path,
        embedder: Embeds,
        path: Path = PRECEDENTS_PATH,
        note: Callable[[str], None] | None = None,
        vectors: Vectors | None = None,
    ) -> None:
        self._folder = folder
        self._embedder = embedder
        self._path = path
        self._note = note
        self._vectors = vectors
        self._notes: list[str] = []
        self._lock = threading.RLock()
        self._client: Any = None
        self._collection: Any = None

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._notes)

    @cached_property
    def precedents(self) -> dict[str, Precedent]:
        """Every precedent of the file by id, of any date. Errors: InputError for an invalid file."""
        return {precedent.id: precedent for precedent in load_precedents(self._path)}

    @cached_property
    def digest(self) -> str:
        """Hex sha256 over the file and the embedding weights: what an answer depends on, for the ledger's key."""
        return hashlib.sha256(f"{sha256_of_file(self._path)}{self._embedder.digest}".encode()).hexdigest()

    def retrieve(
        self, text: str, as_of: dt.date, k: int = 4, min_similarity: float = MIN_SIMILARITY
    ) -> list[Retrieved]:
        """At most `k` precedents that were over by `as_of`, the most similar first, none below `min_similarity`.

        Errors: InputError for an invalid file of precedents; BackendError where no store can be read or built.
        """
        known = sum(precedent.end <= as_of for precedent in self.precedents.values())
        if k < 1 or known == 0 or not text.strip():
            return []
        if self._vectors is None:
            found = self._found(text, as_of, min(known, max(_NEIGHBOURS, k)))
        else:
            found = self._remembered(text, as_of, min(known, max(_NEIGHBOURS, k)), self._vectors)
        found.sort(key=lambda item: (-item.similarity, item.precedent.id))
        return [item for item in found if item.similarity >= min_similarity][:k]

    def _found(self, text: str, as_of: dt.date, n: int) -> list[Retrieved]:
        query = self._embedder.embed([text])[0]
        with self._lock:
            try:
                return self._search(query, as_of, n)
            except BackendError:
                raise
            except BaseException as error:  # noqa: BLE001  Chroma's core panics outside Exception
                _let_through(error)
                self._rebuild(error)
                return self._search(query, as_of, n)

    def _remembered(self, text: str, as_of: dt.date, n: int, vectors: Vectors) -> list[Retrieved]:
        """What the store finds, kept by the text as pairs of a precedent's place in the file and its similarity."""
        rows = list(self.precedents.values())
        places = {row.id: at for at, row in enumerate(rows)}

        def search(text: str) -> npt.NDArray[np.float64]:
            found = self._found(text, as_of, n)
            return np.array([(places[one.precedent.id], one.similarity) for one in found], dtype=np.float64)

        (pairs,) = vectors.through(f"retrieved {WAY} {self.digest} {as_of} {n}", [text], search, np.float64)
        return [Retrieved(precedent=rows[int(at)], similarity=float(near)) for at, near in pairs.reshape(-1, 2)]

    def afresh(self, embedder: Embeds) -> KnowledgeBase:
        """One that searches again for every text; this one, where it remembers nothing."""
        return self if self._vectors is None else KnowledgeBase(self._folder, embedder, self._path, self._note)

    def open(self) -> None:
        """Open the store and fill it where needed, so that the first `retrieve` does not wait. Errors as there."""
        with self._lock:
            if self._collection is not None:
                return
            try:
                self._open(self._stores()[-1])
            except BaseException as error:  # noqa: BLE001  Chroma's core panics outside Exception
                _let_through(error)
                self._rebuild(error)

    def close(self) -> None:
        with self._lock:
            client, self._client, self._collection = self._client, None, None
            if client is not None:
                with suppress(Exception):  # a spoilt store may fail once more, and nothing is left to save
                    client.close()

    def _search(self, query: npt.NDArray[np.float32], as_of: dt.date, n: int) -> list[Retrieved]:
        self.open()
        answer = self._collection.query(
            query_embeddings=query[np.newaxis], n_results=n, where={"end": {"$lte": _day(as_of)}}, include=["distances"]
        )
        ids, distances = answer["ids"][0], answer["distances"][0]
        if len(ids) < n:
            raise _SpoiltStoreError(f"{len(ids)} of {n} precedents came back")
        found = []
        for key, distance in zip(ids, distances, strict=True):
            precedent = self.precedents.get(key)
            if precedent is None or precedent.end > as_of:  # the store's own dates are not trusted
                raise _SpoiltStoreError(f"precedent {key!r} is not in the file, or not over by {as_of}")
            found.append(Retrieved(precedent=precedent, similarity=round(1 - float(distance), DIGITS)))
        return found

    def _stores(self) -> list[Path]:
        """The stores built so far, the current one last; at least one, which need not exist yet."""
        numbers = sorted(
            int(path.name.removeprefix("store-"))
            for path in self._folder.glob("store-*")
            if path.name.removeprefix("store-").isdigit()
        )
        return [self._folder / f"store-{number}" for number in numbers or [0]]

    def _open(self, store: Path) -> None:
        import chromadb
        from chromadb.config import Settings as ChromaSettings

        self.close()
        with exclusive(self._folder / ".lock"):
            self._client = chromadb.PersistentClient(
                path=str(store), settings=ChromaSettings(anonymized_telemetry=False)
            )
            self._collection = self._filled(self._client)

    def _filled(self, client: Any) -> Any:
        """The collection of this digest, whole; those of other digests are removed once it is."""
        name = f"precedents-{WAY}-{self.digest[:16]}"
        names = [collection.name for collection in client.list_collections()]
        if name in names:
            collection = client.get_collection(name, embedding_function=None)
            if collection.count() == len(self.precedents):
                return collection
            client.delete_collection(name)  # left half-filled by a process that died
        collection = client.create_collection(
            name, embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
        )
        rows = list(self.precedents.values())
        texts = [row.as_text() for row in rows]
        collection.add(
            ids=[row.id for row in rows],
            embeddings=np.concatenate([self._embedder.embed([text]) for text in texts]),
            documents=texts,
            metadatas=[{"start": _day(row.start), "end": _day(row.end), "kind": row.kind} for row in rows],
        )
        for other in names:
            if other != name:
                client.delete_collection(other)
        return collection

    def _rebuild(self, error: BaseException) -> None:
        """Build a fresh store beside the one that failed, and say so. Errors: BackendError where that fails too."""
        failed = self._stores()[-1]
        fresh = self._folder / f"store-{int(failed.name.removeprefix('store-')) + 1}"
        try:
            self.close()
            self._open(fresh)
        except BaseException as again:
            _let_through(again)
            raise BackendError(
                f"no knowledge base can be built under {str(self._folder)!r}: {again}",
                fix=lacking(again) or "free some space there, or set FINLLM_HOME to a writable folder",
            ) from again
        message = f"the knowledge base {str(failed)!r} cannot be read ({error}); rebuilt in {str(fresh)!r}"
        self._notes.append(message)
        if self._note is not None:
            self._note(message)


def _day(date: dt.date) -> int:
    """A date as the integer YYYYMMDD, which Chroma can compare."""
    return date.year * 10_000 + date.month * 100 + date.day


def _let_through(error: BaseException) -> None:
    """Raise again what is not the store's failure: an interrupt, or an error that already names its mend."""
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
        raise error
    if isinstance(error, BackendError):
        raise error

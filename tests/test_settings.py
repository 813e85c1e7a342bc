"""Settings: default, then config file, then variable; each value knows where it came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from finllm.errors import InputError
from finllm.settings import Settings, load_settings


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def configured(home: Path, text: str) -> dict[str, str]:
    home.mkdir()
    (home / "config.toml").write_text(text, encoding="utf-8")
    return {"FINLLM_HOME": str(home)}


def test_without_anything_all_is_default_and_nothing_is_created(home: Path) -> None:
    loaded = load_settings({"FINLLM_HOME": str(home)})
    assert loaded.origins == {**dict.fromkeys(Settings.model_fields, "default"), "home": "FINLLM_HOME"}
    assert (loaded.settings.edge_precision, loaded.settings.deep_precision) == ("Q4_0", "F16")
    assert not home.exists()


def test_the_tests_themselves_are_sandboxed(tmp_path: Path) -> None:
    assert load_settings().settings.home == tmp_path / "home"


def test_a_variable_outweighs_the_file_which_outweighs_the_default(home: Path) -> None:
    env = configured(home, "threads = 3\ncontext = 4096\n")
    loaded = load_settings({**env, "FINLLM_THREADS": "5"})
    assert (loaded.settings.threads, loaded.settings.context, loaded.settings.seed) == (5, 4096, 0)
    assert loaded.origins["threads"] == "FINLLM_THREADS"
    assert loaded.origins["context"] == str(home / "config.toml")
    assert loaded.origins["seed"] == "default"


def test_an_empty_variable_counts_as_unset(home: Path) -> None:
    loaded = load_settings({"FINLLM_HOME": str(home), "FINLLM_MODEL": "", "FINLLM_THREADS": ""})
    assert loaded.settings.model is None
    assert loaded.origins["threads"] == "default"
    assert load_settings({"FINLLM_HOME": ""}).settings.home == Path("~/.finllm").expanduser()


def test_every_folder_and_file_is_under_the_home(home: Path) -> None:
    settings = load_settings({"FINLLM_HOME": str(home)}).settings
    places = (
        settings.models_dir,
        settings.ledger_path,
        settings.checkpoints_path,
        settings.knowledge_dir,
        settings.runs_dir,
    )
    assert all(place.parent == home for place in places)
    assert len(set(places)) == len(places)


def test_a_relative_home_does_not_move_with_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings({"FINLLM_HOME": "here"}).settings.home == tmp_path / "here"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("THREADS", "0"),
        ("THREADS", "many"),
        ("CONTEXT", "100"),
        ("CALL_TIMEOUT", "nan"),
        ("CALL_TIMEOUT", "inf"),
        ("CALL_TIMEOUT", "-1"),
        ("SEED", "-1"),
        ("SEED", "1.5"),
    ],
)
def test_a_bad_variable_is_named(home: Path, variable: str, value: str) -> None:
    with pytest.raises(InputError, match=f"setting '{variable.lower()}' from FINLLM_{variable}: ") as refusal:
        load_settings({"FINLLM_HOME": str(home), f"FINLLM_{variable}": value})
    assert "finllm config show" in refusal.value.fix


@pytest.mark.parametrize("text", ["threads = 0", "threds = 2", "threads = 'x'", "[threads]\nn = 1"])
def test_a_bad_line_of_the_file_names_the_file(home: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"setting 'thr.*' from .*config\.toml: "):
        load_settings(configured(home, text))


def test_a_file_that_is_no_toml_is_named(home: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*config\.toml"):
        load_settings(configured(home, "threads ="))
    (home / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"cannot read .*config\.toml"):
        load_settings({"FINLLM_HOME": str(home)})


def test_the_file_cannot_move_its_own_home(home: Path) -> None:
    with pytest.raises(InputError, match="sets 'home'") as refusal:
        load_settings(configured(home, "home = '/elsewhere'"))
    assert refusal.value.fix == "set FINLLM_HOME instead"


def test_a_home_of_nobody_is_named() -> None:
    with pytest.raises(InputError, match="setting 'home': cannot expand '~no-such-user-at-all/x'"):
        load_settings({"FINLLM_HOME": "~no-such-user-at-all/x"})


def test_a_home_that_is_a_file_leaves_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert load_settings({"FINLLM_HOME": str(tmp_path / "file")}).origins["threads"] == "default"


def test_vllm_servers_are_named_by_commas_or_as_a_list(home: Path) -> None:
    env = configured(home, 'vllm_urls = ["http://a:8000", "https://b"]\n')
    assert load_settings(env).settings.vllm_urls == ("http://a:8000", "https://b")
    two = {**env, "FINLLM_VLLM_URLS": "http://c:8000/v1, http://d:1 ,"}
    assert load_settings(two).settings.vllm_urls == ("http://c:8000/v1", "http://d:1")


@pytest.mark.parametrize(
    ("urls", "complaint"),
    [
        ("localhost:8000", "not a URL"),
        ("ftp://a", "not a URL"),
        ("http://", "not a URL"),
        ("http://me:geheim@a:8000", "FINLLM_VLLM_API_KEY"),
        ("http://a,http://a", "named twice"),
    ],
)
def test_what_is_no_server_is_refused_without_showing_a_password(home: Path, urls: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as refusal:
        load_settings({"FINLLM_HOME": str(home), "FINLLM_VLLM_URLS": urls})
    assert "geheim" not in str(refusal.value)


def test_the_key_of_the_servers_shows_itself_nowhere(home: Path) -> None:
    settings = load_settings({"FINLLM_HOME": str(home), "FINLLM_VLLM_API_KEY": "geheim"}).settings
    assert "geheim" not in f"{settings!r} {settings.model_dump_json()}"
    assert settings.vllm_api_key is not None
    assert settings.vllm_api_key.get_secret_value() == "geheim"

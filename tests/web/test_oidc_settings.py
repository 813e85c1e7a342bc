"""What has to be set for a provider, and how an admin binds somebody at the keyboard."""

from __future__ import annotations

from pathlib import Path

import pytest

from finllm.cli.main import main
from finllm.errors import InputError
from finllm.settings import Settings, load_settings
from finllm.web.oidc import oidc_of
from tests.web.conftest import Made, copied


@pytest.mark.parametrize("issuer", ["http://id.example", "ftp://id.example", "https://a:b@id.example", "https://id.example?x=1",
                                    "id.example"])  # fmt: skip
def test_an_issuer_that_would_be_read_on_the_way_is_refused(issuer: str) -> None:
    with pytest.raises(InputError, match="is no issuer"):
        load_settings({"FINLLM_OIDC_ISSUER": issuer})


def test_half_of_the_settings_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="oidc_client_id"):
        oidc_of(Settings(home=tmp_path, oidc_issuer="https://id.example"))
    with pytest.raises(InputError, match="nobody could sign in"):
        oidc_of(Settings(home=tmp_path, oidc_only=True))
    secret = tmp_path / "secret"
    secret.write_text("hush\n")
    secret.chmod(0o644)
    whole = Settings(
        home=tmp_path, oidc_issuer="https://id.example", oidc_client_id="desk", oidc_client_secret_file=secret
    )
    with pytest.raises(InputError, match="can be read by others"):
        oidc_of(whole)
    secret.chmod(0o600)
    assert oidc_of(whole) is not None
    with pytest.raises(InputError, match="cannot read"):
        oidc_of(whole.model_copy(update={"oidc_client_secret_file": tmp_path / "none"}))


def test_an_admin_binds_at_the_keyboard(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = copied(made, tmp_path / "home").home
    monkeypatch.setenv("FINLLM_HOME", str(home))
    monkeypatch.setattr("finllm.cli.users.login", lambda: "boss")
    monkeypatch.setattr("finllm.cli.identity.login", lambda: "boss")
    assert main(["users", "bind", "rev1", "--subject", "s-1"]) == 2
    assert "FINLLM_OIDC_ISSUER" in capsys.readouterr().err
    monkeypatch.setenv("FINLLM_OIDC_ISSUER", "https://id.example")
    assert main(["users", "bind", "rev1"]) == 2
    assert main(["users", "bind", "rev1", "--subject", "s-1"]) == 0
    assert "subject s-1 of https://id.example" in capsys.readouterr().out
    assert main(["users", "bind", "rev2", "--subject", "s-1"]) == 2
    assert "is bound to user 'rev1'" in capsys.readouterr().err
    assert main(["users", "bind", "rev1", "--none"]) == 0
    assert "subject" not in capsys.readouterr().out
    monkeypatch.setattr("finllm.cli.identity.login", lambda: "rev1")
    assert main(["users", "bind", "rev2", "--subject", "s-2"]) == 1
    assert "may not change users" in capsys.readouterr().err

"""`finllm models export hf`: what it says, and where it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from finllm.cli import models_export
from finllm.errors import InputError
from finllm.models import hf_export


def group() -> typer.Typer:
    app = typer.Typer()
    app.callback()(lambda: None)
    models_export.add_to(app)
    return app


def test_it_says_what_was_written_and_how_to_serve_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(source: object, folder: Path) -> tuple[str, int]:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        return "LlamaForCausalLM", 134_515_008

    monkeypatch.setattr(hf_export, "_write", write)
    out = tmp_path / "hf"
    said = CliRunner().invoke(group(), ["export", "hf", str(out)], env={"COLUMNS": "400"})
    assert said.exit_code == 0
    assert "135 million parameters in BF16" in said.output
    again = CliRunner().invoke(group(), ["export", "hf", str(out), "--json"])
    assert json.loads(again.output)["folder"] == str(out)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("text")
    said = CliRunner().invoke(group(), ["export", "hf", str(tmp_path)])
    assert isinstance(said.exception, InputError)


@pytest.mark.parametrize("command", [["export", "--help"], ["export", "hf", "--help"], ["export"]])
def test_help_has_examples(command: list[str]) -> None:
    assert "Examples:" in CliRunner().invoke(group(), command).output

"""What is installed: one top-level name, data files on board, nothing heavy and no socket at import."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import LONGEST_RUN

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=LONGEST_RUN)
    (wheel,) = out.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheel_holds_one_top_level_name(wheel_names: list[str]) -> None:
    assert {name.split("/")[0] for name in wheel_names if ".dist-info/" not in name} == {"finllm"}


@pytest.mark.parametrize(
    "name",
    ["py.typed", "agents/prompts/narrative.md.j2", "agents/probes/narrative.yaml", "scenarios/hormuz-blockade.yaml",
     "scenarios/portfolios/default.csv",
     "memory/precedents.yaml", "tools/pnl/size_table.yaml", "guardrails/injection.yaml",
     "models/heads/second-opinion.safetensors", "models/heads/second-opinion.json",
     "models/adapters/smollm2-135m-analyst.gguf", "models/adapters/smollm2-135m-analyst.json"],
)  # fmt: skip
def test_the_wheel_carries_the_data_that_runs_need(name: str, wheel_names: list[str]) -> None:
    assert f"finllm/{name}" in wheel_names


def test_importing_finllm_opens_no_socket_and_loads_nothing_heavy() -> None:
    program = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("a socket was opened at import")
socket.socket.connect = refuse
import finllm.cli.main, finllm.tools, finllm.agents, finllm.models, finllm.scheduler.backends.llama_cpp
from finllm.cli.commands import HELP, load
for command in HELP: load(command)
heavy = {"torch", "pandas", "llama_cpp", "chromadb", "statsforecast", "sentence_transformers"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr

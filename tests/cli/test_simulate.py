"""`finllm simulate`: policies side by side on a trace and a nodes file, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.scheduler.fleets import arrival, write_trace

NODES = str(Path(__file__).parents[2] / "scenarios" / "nodes" / "edge-deep.yaml")


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "trace.csv"
    write_trace(path, [arrival(at / 2, deadline=6.0, tenant=f"desk-{at % 2}") for at in range(40)])
    return str(path)


def test_policies_are_compared_in_a_table_and_drawn(cli: Cli, trace: str, tmp_path: Path) -> None:
    said = cli("simulate", trace, "--nodes", NODES, "--policy", "weighted", "--policy", "fcfs", "--gantt",
               str(tmp_path / "day.svg"))  # fmt: skip
    assert said.code == 0
    assert "weighted" in said.out
    assert "fcfs" in said.out
    assert "<svg" in (tmp_path / "day.svg").read_text()


def test_figures_come_as_json_and_the_same_each_time(cli: Cli, trace: str) -> None:
    once = cli("simulate", trace, "--nodes", NODES, "--load", "1.2", "--policy", "all", "--json").json
    again = cli("simulate", trace, "--nodes", NODES, "--load", "1.2", "--policy", "all", "--json").json
    assert once == again
    assert once["tasks"] == 40
    assert once["policies"]["weighted"]["goodput"] >= once["policies"]["fcfs"]["goodput"]
    assert once["policies"]["weighted"]["grams"] > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("--policy", "fastest"), "there is no policy 'fastest'"),
        (("--nodes", "no-such.yaml"), "no-such.yaml"),
        (("--load", "0"), "a load of 0"),
        (("--tasks", "0"), "--tasks 0"),
        (("--gantt", "day.pdf"), "cannot draw 'day.pdf'"),
    ],
)
def test_what_is_wrong_is_named_with_the_mend(cli: Cli, trace: str, change: tuple[str, str], said: str) -> None:
    options = {"--nodes": NODES} | dict([change])
    shown = cli("simulate", trace, *(part for pair in options.items() for part in pair))
    assert shown.code == 2
    assert said in shown.err


def test_a_trace_whose_task_fits_nowhere_says_which_constraint(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    write_trace(path, [arrival(0.0, prompt=5000)])
    shown = cli("simulate", str(path), "--nodes", NODES)
    assert shown.code == 1
    assert "its context holds 4096" in shown.err

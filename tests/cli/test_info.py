"""Commands that answer at once: help, version, scenarios, settings, doctor, runs, completion."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer
from rich.cells import cell_len
from typer.main import get_group

import finllm
from finllm.cli import doctor_checks
from finllm.cli.commands import HELP, load, module_of
from finllm.cli.options import parse_budget
from finllm.guardrails.audit import open_recorder
from finllm.memory.ledger import Ledger
from finllm.sessions.requests import merge_budgets
from finllm.settings import Settings
from finllm.tools.data.scenario import BudgetEntry

from .conftest import Cli

HEAVY = ("torch", "pandas", "langgraph", "chromadb", "llama_cpp", "sentence_transformers", "statsforecast")
COMMANDS = ("run", "resume", "trace", "read", "doctor", "runs", "scenarios", "config", "models", "calibrate")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["scenarios", "list"], ["config", "show"]], ids=" ".join
)
def test_quick_commands_import_nothing_heavy(arguments: list[str], home: Path) -> None:
    code = (
        "import sys; from finllm.cli.main import main; code = main(sys.argv[1:]); "
        f"print(code, sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)"
    )
    child = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60,
                           check=False, env=os.environ | {"FINLLM_HOME": str(home)})  # fmt: skip
    assert child.stderr.strip() == "0 []"
    assert not home.exists()


def test_the_help_page_imports_no_command(home: Path) -> None:
    unwanted = ("numpy", "pydantic", "asyncio", "importlib.metadata", *(module_of(name) for name in HELP))
    code = (
        "import sys; from finllm.cli.main import main; code = main(sys.argv[1:]); "
        f"print(code, sorted(set(sys.modules) & set({unwanted!r})), file=sys.stderr)"
    )
    child = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, timeout=60,
                           check=False, env=os.environ | {"FINLLM_HOME": str(home)})  # fmt: skip
    assert child.stderr.strip() == "0 []"


@pytest.mark.parametrize("name", HELP)
def test_the_help_page_says_what_the_command_says_of_itself(name: str) -> None:
    command = load(name)
    assert " ".join(command.help.split("\n\n")[0].split()) == HELP[name]


def test_every_command_is_on_the_help_page() -> None:
    app = typer.Typer()
    for module in dict.fromkeys(map(module_of, HELP)):
        import_module(module).add_to(app)
    assert set(get_group(app).commands) == set(HELP)


def test_version(cli: Cli) -> None:
    assert cli("--version").out == f"finllm {finllm.__version__}\n"


def test_help_names_a_default_that_is_no_value_of_its_own(cli: Cli) -> None:
    """Text in brackets is a style to rich, which leaves it out unless it is escaped."""
    words = " ".join(cli("stress", "--help").out.replace("│", " ").split())
    assert "the shipped book" in words


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=" ".join)
def test_help_has_examples(cli: Cli, command: tuple[str, ...]) -> None:
    said = cli(*command, "--help")
    assert said.code == 0
    assert "Examples:" in said.out
    assert " ".join(("finllm", *command)) in said.out


@pytest.mark.parametrize("group", ["runs", "scenarios", "config", "models"])
def test_a_group_alone_shows_its_help(cli: Cli, group: str) -> None:
    said = cli(group)
    assert said.code == 0
    assert "Examples:" in said.out


def test_scenarios_list(cli: Cli) -> None:
    rows = cli("scenarios", "list", "--json").json["scenarios"]
    assert len(rows) >= 10
    hormuz = next(row for row in rows if row["name"] == "hormuz-blockade")
    assert hormuz["horizon"] == 20
    assert hormuz["shocks"] == {"OIL_WTI": "+40%"}
    text = cli("scenarios", "list").out
    assert all(row["name"] in text for row in rows)


def test_config_show_names_each_origin(cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    (home / "config.toml").write_text("seed = 7\n")
    monkeypatch.setenv("FINLLM_CONTEXT", "1024")
    rows = {row["name"]: row for row in cli("config", "show", "--json").json["settings"]}
    assert (rows["seed"]["value"], rows["seed"]["origin"]) == (7, str(home / "config.toml"))
    assert (rows["context"]["value"], rows["context"]["origin"]) == (1024, "FINLLM_CONTEXT")
    assert rows["model"]["origin"] == "default"
    assert "$FINLLM_HOME/config.toml" in cli("config", "show").out


def test_runs_list_is_empty_before_the_first_run_and_makes_no_ledger(cli: Cli, home: Path) -> None:
    assert cli("runs", "list", "--json").json == {"runs": []}
    assert not home.exists()


def test_runs_list_shows_the_newest_first(cli: Cli, home: Path) -> None:
    ledger = Ledger(home / "ledger.sqlite")
    for name in ("one", "two"):
        ledger.start_run(name, {"scenario": {"title": f"Story {name}\x1b[2J"}})
    ledger.end_run("two", "stopped", None)
    ledger.close()
    rows = cli("runs", "list", "--json").json["runs"]
    assert [(row["id"], row["status"]) for row in rows] == [("two", "stopped"), ("one", "interrupted")]
    text = cli("runs", "list").out
    assert "Story one" in text
    assert "\x1b" not in text


def test_a_list_of_runs_fits_80_columns_and_breaks_neither_ids_nor_dates(cli: Cli, home: Path) -> None:
    name = "20261129-081500-" + "a" * 40 + "-1f3a07"
    with contextlib.closing(Ledger(home / "ledger.sqlite")) as ledger:
        ledger.start_run(name, {"scenario": {"title": "霍尔木兹 " * 20}})
        lines = cli("runs", "list").out.splitlines()
        assert lines[0] == f"{name}  running"
        assert re.fullmatch(r"  \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  霍尔木兹 .*…", lines[1])
        assert lines[2].startswith(f"  held by process {os.getpid()} on ")
        assert max(cell_len(line) for line in lines) <= 80
        (row,) = cli("runs", "list", "--json").json["runs"]
        assert row["holder"]["pid"] == os.getpid()
        assert row["title"] == "霍尔木兹 " * 20


def test_a_page_of_runs_says_how_many_more_there_are(cli: Cli, home: Path) -> None:
    with contextlib.closing(Ledger(home / "ledger.sqlite")) as ledger:
        for at in range(30):
            ledger.start_run(f"run-{at:02}", {"scenario": {"title": f"Story {at}"}})
            ledger.end_run(f"run-{at:02}", "stopped", None)
    lines = cli("runs", "list").out.splitlines()
    assert lines[0].startswith("run-29")
    assert lines[-1] == "5 older: finllm runs list --limit 30"
    assert len(cli("runs", "list", "--limit", "30").out.splitlines()) == 60
    page = cli("runs", "list", "--limit", "2", "--json").json
    assert ([row["id"] for row in page["runs"]], page["more"]) == (["run-29", "run-28"], 28)
    assert len(cli("runs", "list", "--json").json["runs"]) == 30


def test_runs_are_found_by_each_word_of_their_id_title_or_status(cli: Cli, home: Path) -> None:
    with contextlib.closing(Ledger(home / "ledger.sqlite")) as ledger:
        for at, title in enumerate(("Hormuz closed", "Lehman again", "Hormuz open")):
            ledger.start_run(f"run-{at}", {"scenario": {"title": title}})
            ledger.end_run(f"run-{at}", "stopped" if at else "finished", None)

    def found(*arguments: str) -> list[str]:
        return [row["id"] for row in cli("runs", "list", "--json", *arguments).json["runs"]]

    assert found("--search", "hormuz") == ["run-2", "run-0"]
    assert found("--search", "STOPPED hormuz") == ["run-2"]
    assert found("--search", "run-1") == ["run-1"]
    assert found("--search", "nothing of it") == []
    assert cli("runs", "list", "--search", "hormuz", "-n", "1").out.splitlines()[-1] == (
        "1 older: finllm runs list --limit 2 --search hormuz"
    )
    assert cli("runs", "list", "--search", "nothing").out == "None.\n"


def test_a_search_of_2000_runs_reads_no_request_and_no_report(home: Path) -> None:
    """Half a second of CPU and 150 MB are what a list may take."""
    with contextlib.closing(Ledger(home / "ledger.sqlite")) as ledger:
        ledger.start_run("first", {"scenario": {"title": "A title"}, "bulk": "x" * 100_000})
        ledger.end_run("first", "stopped", None)
    with contextlib.closing(sqlite3.connect(home / "ledger.sqlite")) as db, db:
        db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) INSERT INTO run "
                   "SELECT 'run-' || i, i, r.request, r.status, NULL, NULL FROM n, run r")  # fmt: skip
        db.execute("INSERT INTO title SELECT id, 'Story ' || id FROM run WHERE id <> 'first'")
    code = (
        "import sys, time; from finllm.cli.main import main; main(sys.argv[1:]); "
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM')); "
        "print(time.process_time(), int(peak.split()[1]) / 1024, file=sys.stderr)"
    )
    child = subprocess.run([sys.executable, "-c", code, "runs", "list", "--search", "story run-1999"], text=True,
                           capture_output=True, timeout=60, check=True,
                           env=os.environ | {"FINLLM_HOME": str(home)})  # fmt: skip
    seconds, mib = map(float, child.stderr.split())
    assert child.stdout.startswith("run-1999  ")
    assert seconds < 1.0  # 0.25 where nothing else runs
    assert mib < 150


@pytest.mark.parametrize("command", ["scenarios list", "models list", "nodes"])
def test_a_list_fits_80_columns_and_folds_no_name_date_or_path(command: str, cli: Cli) -> None:
    shown = cli(*command.split())
    assert shown.code == 0
    assert all(cell_len(line) <= 80 or " " not in line.strip() for line in shown.out.splitlines())
    whole = {"scenarios list": "as of 2022-12-28", "models list": "Q4_1.gguf\n", "nodes": "smollm2-135m-analyst:Q4_0\n"}
    assert whole[command] in shown.out


def test_a_run_that_another_process_holds_is_refused_before_a_model_is_opened(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finllm.desk.desk.open_desk", lambda *_: pytest.fail("a desk was opened"))
    with contextlib.closing(open_recorder(Settings(home=home))) as ledger:
        ledger.start_run("mine", {"scenario": {"title": "Mine"}})
        said = cli("resume", "mine", "--json")
    assert said.code == 1
    assert said.json["error"]["kind"] == "run_held"
    assert f"process {os.getpid()} on " in said.json["error"]["message"]
    assert "finllm resume mine" in said.json["error"]["fix"]


def test_completion_offers_the_shipped_scenarios(home: Path) -> None:
    environ = os.environ | {"_FINLLM_COMPLETE": "complete_bash", "COMP_WORDS": "finllm run horm", "COMP_CWORD": "2",
                            "FINLLM_HOME": str(home)}  # fmt: skip
    child = subprocess.run([sys.executable, "-m", "finllm.cli.main"], capture_output=True, text=True, timeout=60,
                           check=False, env=environ)  # fmt: skip
    assert child.stdout.split() == ["hormuz-blockade"]


def test_doctor_finds_this_installation_whole(cli: Cli, home: Path) -> None:
    said = cli("doctor", "--json")
    checks = {check["name"]: check for check in said.json["checks"]}
    assert {name: check for name, check in checks.items() if check["status"] == "missing"} == {}
    assert said.code == 0
    assert {"Python", "typer", "llama.cpp build", "FINLLM_HOME", "model source", "rung Q4_0", "embedding model",
            "ledger", "edge node", "deep node"} <= set(checks)  # fmt: skip
    assert all(check["fix"] for check in checks.values() if check["status"] != "ok")
    assert not (home / "ledger.sqlite").exists()


def test_doctor_says_what_is_missing_and_exits_with_1(
    cli: Cli, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir()
    (home / "ledger.sqlite").write_text("this is no database, and long enough to be taken for one" * 20)
    monkeypatch.setenv("FINLLM_MODEL", str(tmp_path / "gone.gguf"))
    monkeypatch.setattr(doctor_checks.metadata, "requires", lambda _name: ["no-such-package>=2"])
    said = cli("doctor", "--json")
    missing = {check["name"]: check for check in said.json["checks"] if check["status"] == "missing"}
    assert said.code == 1
    assert set(missing) == {"no-such-package", "model source", "ledger", "backends"}
    assert all(check["fix"] for check in missing.values())
    text = cli("doctor")
    assert text.code == 1
    assert "gone.gguf" in text.out


def test_doctor_survives_unreadable_settings(cli: Cli, home: Path) -> None:
    home.mkdir()
    (home / "config.toml").write_text("= nonsense")
    said = cli("doctor", "--json")
    assert said.code == 1
    assert [check["name"] for check in said.json["checks"] if check["status"] == "missing"] == ["settings"]


def test_doctor_warns_of_amx_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_checks, "_SYSTEM_INFO", "print('CPU : AVX2 = 1 | AMX_INT8 = 1 |')")
    check = doctor_checks._llama_build()  # pyright: ignore[reportPrivateUsage]
    assert check.status == "warning"
    assert check.fix
    assert "make install" in check.fix


def test_doctor_survives_a_llama_cpp_built_for_another_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_checks, "_SYSTEM_INFO", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    check = doctor_checks._llama_build()  # pyright: ignore[reportPrivateUsage]
    assert check.status == "missing"
    assert "exit status -4" in check.detail


def test_budget_options() -> None:
    assert parse_budget(None) is None
    assert parse_budget("20s, 5000tokens,0deep") == BudgetEntry(seconds=20, tokens=5000, deep_tokens=0)
    base = BudgetEntry(seconds=20, tokens=5000, deep_tokens=None)
    assert merge_budgets(base, parse_budget("60s,500deep")) == BudgetEntry(seconds=60, tokens=5000, deep_tokens=500)
    spends = parse_budget("2kJ,12g,$0.05")
    assert spends is not None
    assert (spends.joules, spends.grams, spends.usd) == (2000.0, 12.0, 0.05)
    assert parse_budget("300J, 0.5kg, 0.05usd,500deep") == BudgetEntry(
        seconds=None, tokens=None, deep_tokens=500, joules=300, grams=500, usd=0.05
    )
    assert merge_budgets(None, base) == base
    assert merge_budgets(base, None) == base


def test_doctor_names_a_vllm_server_that_does_not_answer(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINLLM_VLLM_URLS", "http://127.0.0.1:9")
    said = cli("doctor", "--json")
    check = next(check for check in said.json["checks"] if check["name"] == "vllm at http://127.0.0.1:9")
    assert said.code == 1
    assert check["status"] == "missing"
    assert "vllm serve" in check["fix"]


def test_a_key_is_not_shown(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINLLM_VLLM_API_KEY", "geheim")
    for options in ((), ("--json",)):
        assert "geheim" not in cli("config", "show", *options).out

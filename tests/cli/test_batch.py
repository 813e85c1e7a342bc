"""`finllm run` with several scenarios around a flow that is acted: what stops one run, and what stops them all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest

from finllm.desk.desk import Desk
from finllm.desk.request import RunRequest
from finllm.errors import BackendError, BudgetExceeded
from finllm.graphs.flow import Outcome
from finllm.graphs.report import Report
from finllm.scenarios import SCENARIOS_DIR

from .acted import Flow
from .conftest import Cli, Shown

THREE = ("hormuz-blockade", "gilt-spiral", "non-event")


@pytest.fixture
def failing(acted: Flow) -> Callable[[str, BaseException], None]:
    """Make the run of the scenario with this title raise."""

    def fail(title: str, error: BaseException) -> None:
        def act(run_id: str, request: RunRequest, desk: Desk) -> Outcome:
            if title in request.scenario.title:
                raise error
            outcome = acted.finish(run_id, request, desk)
            assert outcome.report is not None
            desk.ledger.end_run(run_id, "finished", outcome.report.model_dump(mode="json"))
            return outcome

        acted.act = act

    return fail


def by_scenario(said: Shown) -> dict[str, dict[str, Any]]:
    return {row["scenario"]: row for row in said.json["runs"]}


def test_each_run_has_its_own_id_report_and_files(acted: Flow, cli: Cli, tmp_path: Path) -> None:
    said = cli("run", *THREE, "--out", tmp_path / "out", "--jobs", "2", "--json")
    assert said.code == 0
    rows = by_scenario(said)
    assert tuple(rows) == THREE
    assert said.json["counts"] == {"finished": 3, "blocked": 0, "failed": 0}
    assert len({row["run_id"] for row in rows.values()}) == 3
    for row in rows.values():
        report = json.loads((tmp_path / "out" / row["run_id"] / "report.json").read_text("utf-8"))
        assert report["run_id"] == row["run_id"]
        assert report["total"]["value"] == row["total"] == acted.report.total.value
        assert row["error"] is None
    events = [json.loads(line) for line in said.err.splitlines()]
    (started,) = [event for event in events if event["kind"] == "batch_started"]
    assert started["runs"] == {row["run_id"]: name for name, row in rows.items()}
    assert {event["run"] for event in events if event["kind"] == "node_started"} == set(started["runs"])


def test_one_scenario_stays_a_run_and_batch_options_make_it_a_batch(acted: Flow, cli: Cli, tmp_path: Path) -> None:
    del acted
    assert Report.model_validate(cli("run", "gilt-spiral", "--json").json)
    said = cli("run", "gilt-spiral", "--junit", tmp_path / "junit.xml", "--json")
    assert list(by_scenario(said)) == ["gilt-spiral"]


def test_the_table_shows_every_run_and_the_failed_one_with_its_mend(failing: Callable[..., None], cli: Cli) -> None:
    failing("gilt", BackendError("the engine is down", fix="start it"))
    said = cli("run", *THREE)
    assert said.code == 1
    assert "gilt-spiral: the engine is down" in said.out
    assert "start it; go on with: finllm resume" in said.out
    assert "2 finished, 0 blocked, 1 failed" in said.out
    assert "3 of 3" in said.err


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (
            BudgetExceeded("the budget of tokens is spent", fix="resume the run with a larger --budget"),
            "budget_exceeded",
        ),
        (BackendError("the engine is down", fix="start it"), "backend_failed"),
        (ZeroDivisionError("by nothing"), "internal"),
    ],
)
def test_what_stops_one_run_stops_no_other_and_is_in_every_summary(
    failing: Callable[..., None], cli: Cli, tmp_path: Path, error: Exception, kind: str
) -> None:
    failing("gilt", error)
    junit, parquet, table = tmp_path / "junit.xml", tmp_path / "night" / "all.parquet", tmp_path / "all.csv"
    said = cli("run", *THREE, "--junit", junit, "--summary", parquet, "--summary", table, "--json",
               "--fail-on", "breach")  # fmt: skip
    assert said.code == 1
    failed = by_scenario(said)["gilt-spiral"]
    assert (failed["status"], failed["error"]["kind"], failed["total"]) == ("failed", kind, None)
    assert f"finllm resume {failed['run_id']}" in failed["error"]["fix"]

    frame = pq.read_table(parquet).to_pandas().set_index("scenario")
    assert frame.loc["gilt-spiral", "error_kind"] == kind
    assert frame.loc["non-event", "total"] == -78_000.0
    assert set(frame["batch"]) == {said.json["batch"]}
    assert "gilt-spiral" in table.read_text("utf-8")

    suites = ElementTree.fromstring(junit.read_bytes())
    (suite,) = suites
    assert (suites.tag, suite.tag) == ("testsuites", "testsuite")
    assert {key: suite.get(key) for key in ("tests", "failures", "errors")} == {
        "tests": "3", "failures": "2", "errors": "1"}  # fmt: skip
    cases = {case.get("name"): case for case in suite}
    assert {case.tag for case in suite} == {"testcase"}
    (found,) = cases["gilt-spiral"].findall("error")
    assert found.get("type") == kind
    assert "finllm resume" in (found.text or "")
    (breached,) = cases["non-event"].findall("failure")
    assert breached.get("type") == "breach"
    assert breached.get("message") == "EQUITY_US loses more than its limit"


@pytest.mark.parametrize(
    ("changes", "arguments", "code", "failed_on"),
    [
        ({}, [], 0, None),
        ({}, ["--fail-on", "breach"], 3, "breach"),
        ({}, ["--fail-on", "block"], 0, None),
        ({"status": "blocked"}, ["--fail-on", "block"], 3, "block"),
        ({"status": "blocked"}, ["--fail-on", "block", "--fail-on", "breach"], 3, "breach,block"),
    ],
)
def test_exit_code_is_3_only_where_fail_on_asks(
    acted: Flow, cli: Cli, changes: dict[str, Any], arguments: list[str], code: int, failed_on: str | None
) -> None:
    acted.report = acted.report.model_copy(update=changes)
    said = cli("run", *THREE, "--json", *arguments)
    assert said.code == code
    assert {row["failed_on"] for row in said.json["runs"]} == {failed_on}


def test_all_bad_inputs_are_named_at_once_and_nothing_is_run(acted: Flow, cli: Cli, tmp_path: Path, home: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("title: [")
    said = cli("run", "hormuz-blockade", SCENARIOS_DIR / "hormuz-blockade.yaml", broken, "no-such", "--json")
    message = said.json["error"]["message"]
    assert (said.code, said.json["error"]["kind"]) == (2, "bad_input")
    assert "3 of 4 scenarios" in message
    assert all(words in message for words in ("given twice", "broken.yaml:1", "'no-such'"))
    assert acted.requests == []
    assert not (home / "ledger.sqlite").exists()


def test_what_is_wrong_with_all_of_them_is_said_once(acted: Flow, cli: Cli, tmp_path: Path) -> None:
    del acted
    said = cli("run", *THREE, "--portfolio", tmp_path / "none.csv", "--json")
    assert said.json["error"]["message"].count("none.csv") == 1
    assert "3 scenarios: " in said.json["error"]["message"]


@pytest.mark.parametrize("arguments", [["--summary", "all.txt"], ["--junit", "/dev/null/x/junit.xml"]])
def test_files_that_cannot_be_written_are_refused_before_anything_runs(
    acted: Flow, cli: Cli, arguments: list[str]
) -> None:
    assert cli("run", *THREE, *arguments, "--json").code == 2
    assert acted.requests == []


def test_ctrl_c_names_the_batch_and_the_same_command_goes_on_with_what_is_left(
    acted: Flow, failing: Callable[..., None], cli: Cli
) -> None:
    failing("gilt", KeyboardInterrupt())
    stopped = cli("run", *THREE, "--jobs", "1", "--json")
    assert (stopped.code, stopped.json["error"]["kind"]) == (130, "cancelled")
    assert "1 of 3 runs done" in stopped.json["error"]["message"]
    batch = stopped.json["error"]["fix"].rsplit(" ", 1)[1]
    assert [request.scenario.title[:6] for request in acted.requests] == ["Hormuz", "Pensio"]
    acted.act = acted.finish
    done = cli("run", *THREE, "--jobs", "1", "--json")
    assert (done.code, done.json["batch"]) == (0, batch)
    assert len(acted.requests) == 3
    assert [run_id for run_id, _, _ in acted.resumed] == [row["run_id"] for row in done.json["runs"][:2]]
    again = cli("run", *THREE, "--json")
    assert again.json["batch"] != batch, "a batch that ended is not gone on with by the same command"


def test_resume_takes_a_batch_and_gives_its_failed_run_a_larger_budget(
    acted: Flow, failing: Callable[..., None], cli: Cli
) -> None:
    failing("gilt", BudgetExceeded("the budget of tokens is spent", fix="resume the run with a larger --budget"))
    batch = cli("run", *THREE, "--json").json["batch"]
    said = cli("resume", batch, "--budget", "900tokens", "--json")
    assert (said.code, said.json["batch"]) == (0, batch)
    assert {budget.tokens for _, _, budget in acted.resumed if budget} == {900}
    assert cli("resume", batch, "--answer", "accept").code == 2
    assert cli("resume", "no-such-batch", "--junit", "x.xml").code == 2


def test_a_question_is_the_error_of_its_run(acted: Flow, cli: Cli) -> None:
    acted.act = acted.wait
    said = cli("run", *THREE, "--ask", "--json")
    assert said.code == 1
    assert {row["error"]["kind"] for row in said.json["runs"]} == {"human_needed"}
    assert all(f"finllm resume {row['run_id']} --answer withhold|accept" == row["error"]["fix"]
               for row in said.json["runs"])  # fmt: skip


def test_files_that_cannot_be_written_are_the_error_of_their_run(
    acted: Flow, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    del acted
    from finllm.review import outputs

    write = outputs.write_files

    def full(folder: Path, *arguments: Any, **options: Any) -> None:
        if "gilt" in folder.name:
            raise OSError(28, "No space left on device")
        write(folder, *arguments, **options)

    monkeypatch.setattr(outputs, "write_files", full)
    said = cli("run", *THREE, "--json")
    assert said.code == 1
    assert {name: row["status"] for name, row in by_scenario(said).items()} == {
        "hormuz-blockade": "finished", "gilt-spiral": "failed", "non-event": "finished"}  # fmt: skip


def test_quiet_says_nothing_on_stderr(acted: Flow, cli: Cli) -> None:
    del acted
    assert cli("run", *THREE, "--quiet").err == ""


def test_several_books_are_a_batch_and_its_map_names_every_cell(acted: Flow, cli: Cli, tmp_path: Path) -> None:
    del acted
    for name, quantity in (("growth", 100), ("income", 50)):
        (tmp_path / f"{name}.csv").write_text(f"id,quantity,currency,asset_class\nAAPL,{quantity},USD,equity\n")
    books = ("-p", tmp_path / "growth.csv", "-p", tmp_path / "income.csv")
    page, png, table = (tmp_path / f"map.{form}" for form in ("html", "png", "parquet"))
    said = cli(
        "run", "gilt-spiral", "ceasefire", *books, "--heatmap", page, "--heatmap", png, "--heatmap", table, "--json"
    )
    assert said.code == 0
    assert [(row["scenario"], row["book"]) for row in said.json["runs"]] == [
        ("gilt-spiral on growth", "growth"), ("ceasefire on growth", "growth"),
        ("gilt-spiral on income", "income"), ("ceasefire on income", "income")]  # fmt: skip
    html = page.read_text("utf-8")
    assert html.count("\u22127.8% !1") >= 8  # in the picture and in the table
    assert "The same as a table" in html
    assert png.read_bytes().startswith(b"\x89PNG")
    found = pq.read_table(table).to_pylist()
    assert sorted((row["book"], row["scenario"]) for row in found) == [
        (book, scenario) for book in ("growth", "income") for scenario in ("ceasefire", "gilt-spiral")]  # fmt: skip
    assert {(row["share"], row["breaches"]) for row in found} == {(-0.078, 1)}
    assert cli("verify", page, png, table).code == 0
    assert cli("run", "gilt-spiral", "ceasefire", "--heatmap", tmp_path / "map.svg").code == 2
    assert cli("run", "gilt-spiral", *books[:2], *books[:2]).code == 2

"""`finllm run`, `resume` and `read` around a flow that is acted: what goes in, what comes out, what stops them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from finllm.agents.agent import Opinion
from finllm.agents.narrative import Reading
from finllm.agents.pooling import ByChannels
from finllm.desk.desk import Desk
from finllm.desk.request import RunRequest
from finllm.errors import BudgetExceeded
from finllm.graphs import event_reading
from finllm.graphs.event_reading import EventRead
from finllm.graphs.flow import Outcome
from finllm.graphs.report import Report
from finllm.tools.channels import Opened
from finllm.tools.data.scenario import BudgetEntry

from .acted import Flow
from .conftest import Cli

BOOK = "id,quantity,market_value,currency,asset_class\nAAPL,10,,USD,equity\n"


def started(home: Path) -> str:
    """The id of the one run on record."""
    from finllm.memory.ledger import Ledger

    ledger = Ledger(home / "ledger.sqlite")
    try:
        (row,) = ledger.runs()
    finally:
        ledger.close()
    return row.id


def test_json_is_one_object_on_stdout_and_events_on_stderr(acted: Flow, cli: Cli, tmp_path: Path) -> None:
    said = cli("run", "hormuz-blockade", "--out", tmp_path / "out", "--json")
    assert said.code == 0
    assert Report.model_validate(said.json).total == acted.report.total
    kinds = [json.loads(line)["kind"] for line in said.err.splitlines()]
    assert {"progress", "run_started", "node_started", "run_finished", "noted"} <= set(kinds)
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left >= {"report.html", "report.json", "report.md", "trace.jsonl", "waterfall.png"}
    assert json.loads((tmp_path / "out" / "report.json").read_text("utf-8")) == said.json


def test_text_goes_to_stdout_and_talk_to_stderr(acted: Flow, cli: Cli, home: Path) -> None:
    said = cli("run", "hormuz-blockade")
    assert said.code == 0
    assert said.out.startswith("Hormuz closed")
    assert acted.report.summary[0] in said.out
    assert "\x1b" not in said.out
    assert "intake: started" in said.err
    assert (home / "runs" / started(home) / "report.json").is_file()


def test_quiet_says_nothing_on_stderr(acted: Flow, cli: Cli) -> None:
    del acted
    assert cli("run", "hormuz-blockade", "--quiet").err == ""
    assert cli("run", "hormuz-blockade", "--quiet", "--json").err == ""


@pytest.mark.parametrize(
    ("changes", "arguments", "code"),
    [
        ({}, [], 0),
        ({}, ["--fail-on", "breach"], 3),
        ({}, ["--fail-on", "block"], 0),
        ({"breaches": ()}, ["--fail-on", "breach"], 0),
        ({"status": "blocked"}, [], 0),
        ({"status": "blocked", "breaches": ()}, ["--fail-on", "breach", "--fail-on", "block"], 3),
    ],
)
def test_exit_code_is_3_only_where_fail_on_asks(
    acted: Flow, cli: Cli, changes: dict[str, Any], arguments: list[str], code: int
) -> None:
    acted.report = acted.report.model_copy(update=changes)
    said = cli("run", "hormuz-blockade", "--json", *arguments)
    assert said.code == code
    assert "error" not in said.json


def test_options_reach_the_request(acted: Flow, cli: Cli) -> None:
    cli("run", "hormuz-blockade", "--as-of", "2022-07-15", "--budget", "20s,5000tokens", "--seed", "7", "--ask")
    (request,) = acted.requests
    assert request.as_of.isoformat() == "2022-07-15"
    assert request.budget == BudgetEntry(seconds=20, tokens=5000, deep_tokens=None)
    assert request.seed == 7
    assert request.on_unresolved == "ask"
    assert request.portfolio.name == "default"
    assert request.limits.loss_by_factor


def test_own_portfolio_takes_the_limits_beside_it_and_says_when_there_are_none(
    acted: Flow, cli: Cli, tmp_path: Path
) -> None:
    book = tmp_path / "book.csv"
    book.write_text(BOOK)
    assert "no limits" in cli("run", "hormuz-blockade", "--portfolio", book).err
    assert acted.requests[-1].limits.loss_by_factor == {}
    (tmp_path / "limits.yaml").write_text("version: 1\nloss_by_factor: {GOLD: 5.0}\n")
    assert "limits are those of" in cli("run", "hormuz-blockade", "--portfolio", book).err
    assert acted.requests[-1].limits.loss_by_factor == {"GOLD": 5.0}


def test_a_question_with_nobody_there_says_how_to_answer(acted: Flow, cli: Cli, home: Path, tmp_path: Path) -> None:
    acted.act = acted.wait
    said = cli("run", "hormuz-blockade", "--ask", "--json", "--out", tmp_path / "out")
    error = said.json["error"]
    assert (said.code, error["kind"]) == (1, "human_needed")
    assert "OIL_WTI" in error["message"]
    assert error["fix"] == f"finllm resume {started(home)} --answer withhold|accept"
    assert not (tmp_path / "out").exists()


def test_a_question_at_a_terminal_is_asked_until_it_is_answered(
    acted: Flow, cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acted.act = acted.wait
    stdin = io.StringIO("perhaps\nAccept\n")
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    said = cli("run", "hormuz-blockade", "--ask")
    assert said.code == 0
    assert acted.resumed == [(started(home), "accept", None)]
    assert said.err.count("withhold or accept?") == 2


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_exits_with_130_and_says_how_to_go_on(acted: Flow, cli: Cli, home: Path, as_json: bool) -> None:
    def interrupted(*_: Any) -> Outcome:
        raise KeyboardInterrupt

    acted.act = interrupted
    said = cli("run", "hormuz-blockade", *(["--json"] if as_json else []))
    assert said.code == 130
    assert f"finllm resume {started(home)}" in (said.json["error"]["fix"] if as_json else said.err)


def test_a_spent_budget_names_the_run_to_resume(acted: Flow, cli: Cli, home: Path) -> None:
    def spent(*_: Any) -> Outcome:
        raise BudgetExceeded("the budget of tokens is spent", fix="resume the run with a larger --budget")

    acted.act = spent
    said = cli("run", "hormuz-blockade", "--json")
    assert (said.code, said.json["error"]["kind"]) == (1, "budget_exceeded")
    assert f"finllm resume {started(home)}" in said.json["error"]["fix"]


def test_the_unforeseen_is_one_message_and_its_traceback_is_had_by_asking(
    acted: Flow, cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Outcome:
        raise ZeroDivisionError("by nothing")

    acted.act = broken
    said = cli("run", "hormuz-blockade", "--json", "--quiet")
    assert (said.code, said.err, said.json["error"]["kind"]) == (1, "", "internal")
    assert "FINLLM_DEBUG=1" in said.json["error"]["fix"]
    assert f"finllm resume {started(home)}" in said.json["error"]["fix"]
    monkeypatch.setenv("FINLLM_DEBUG", "1")
    assert "Traceback" in cli("run", "hormuz-blockade", "--json", "--quiet").err


def test_a_full_disk_is_a_refusal_of_the_system_and_not_a_bug(acted: Flow, cli: Cli, home: Path) -> None:
    def full(*_: Any) -> Outcome:
        raise OSError(28, "No space left on device")

    acted.act = full
    said = cli("run", "hormuz-blockade", "--json")
    assert (said.code, said.json["error"]["kind"]) == (1, "failed")
    assert "No space left on device" in said.json["error"]["message"]
    assert f"finllm resume {started(home)}" in said.json["error"]["fix"]


def test_resume_takes_an_answer_and_raises_single_limits_of_the_budget(acted: Flow, cli: Cli, home: Path) -> None:
    acted.act = acted.wait
    cli("run", "hormuz-blockade", "--budget", "20s,5000tokens", "--json")
    run_id = started(home)
    said = cli("resume", run_id, "--answer", "withhold", "--budget", "90s", "--json")
    assert said.code == 0
    assert said.json["run_id"] == run_id
    assert acted.resumed == [(run_id, "withhold", BudgetEntry(seconds=90, tokens=5000, deep_tokens=None))]


def test_library_warnings_stay_off_stderr(acted: Flow, cli: Cli) -> None:
    def noisy(run_id: str, request: RunRequest, desk: Desk) -> Outcome:
        import logging
        import warnings

        warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
        logging.getLogger("some.library").warning("noise")
        return acted.finish(run_id, request, desk)

    acted.act = noisy
    assert cli("run", "hormuz-blockade", "--quiet").err == ""


def opinion(**changes: Any) -> Opinion[Reading]:
    call = {"direction": "up", "size": "large"}
    values: dict[str, Any] = {
        "agent": "narrative", "status": "judged", "calls": ["k1", "k2"], "backend": "edge:SmolLM2", "precision": "Q4_0",
        "prompt_version": "0" * 12,
        "judgement": {"event": "blockade", "region": "mideast", "stance": "neutral", "severity": "high",
                      "horizon": "weeks", "factors": {"OIL_WTI": call}, "because": []},
        "choices": {"event": {"blockade": 0.6, "war": 0.4}, "region": {"mideast": 1.0}, "stance": {"neutral": 0.5},
                    "severity": {"high": 0.7}, "horizon": {"weeks": 0.8},
                    "factors.OIL_WTI.direction": {"up": 0.9, "down": 0.1}, "factors.OIL_WTI.size": {"large": 0.4}},
    }  # fmt: skip
    return Opinion[Reading].model_validate({**values, **changes})


@pytest.fixture
def heard(acted: Flow, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the narrative agent was given, and, under `says`, what it answers."""
    del acted
    found: dict[str, Any] = {"says": opinion()}

    async def read_event(text: str, desk: Desk) -> EventRead:
        del desk
        found.update(text=text)
        return EventRead(text, found["says"], found.get("heard"), {"OIL_WTI": "up"}, {"OIL_WTI": "mixed"}, "Abqaiq")

    monkeypatch.setattr(event_reading, "read_event", read_event)
    return found


def test_read_gives_each_field_and_factor_with_its_probability(heard: dict[str, Any], cli: Cli) -> None:
    said = cli("read", "Mines close the strait", "--json")
    assert said.code == 0
    assert heard["text"] == "Mines close the strait"
    assert said.json["event"] == {"value": "blockade", "probability": 0.6}
    assert said.json["factors"] == {"OIL_WTI": {"direction": "up", "size": "large", "probability": 0.9}}
    assert set(said.json) == {"event", "region", "stance", "severity", "horizon", "factors", "status", "reason",
                              "backend", "precision", "calls", "channels", "checks", "closest"}  # fmt: skip
    assert said.json["channels"] is None  # no reader was at hand
    assert said.json["checks"] == {"OIL_WTI": {"words": "up", "precedents": "mixed"}}
    text = cli("read", "Mines close the strait").out
    assert "blockade" in text
    assert "90 %" in text


def test_read_shows_the_channels_with_their_sentence_and_what_they_move(heard: dict[str, Any], cli: Cli) -> None:
    one = Opened(channel="crude_supply_lost", probability=0.9, state="feared", states={"feared": 0.8, "happens": 0.2},
                 start=0, end=22)  # fmt: skip
    heard["heard"] = ByChannels([one, one.model_copy(update={"channel": "relief", "probability": 0.02})])
    (row,) = cli("read", "Mines close the strait", "--json").json["channels"]
    assert (row["channel"], row["state"], row["probability"], row["words"]) == (
        "crude_supply_lost", "feared", 0.9, "Mines close the strait")  # fmt: skip
    assert row["moves"]["OIL_WTI"] == 3
    text = cli("read", "Mines close the strait").out
    assert "OIL_WTI +++" in text
    assert "“Mines close the strait”" in text
    assert "Nothing here bears on markets" not in text


def test_read_says_where_nothing_bears_on_markets(heard: dict[str, Any], cli: Cli) -> None:
    still = {"OIL_WTI": {"direction": "none", "size": "none"}}
    judged = {"event": "none", "region": "us", "stance": "neutral", "severity": "low", "horizon": "days",
              "factors": still, "because": []}  # fmt: skip
    odds = {name: {judged[name]: 1.0} for name in ("event", "region", "stance", "severity", "horizon")}
    odds["factors.OIL_WTI.direction"] = {"none": 1.0}
    heard.update(says=opinion(judgement=judged, choices=odds), heard=ByChannels([]))
    assert "Nothing here bears on markets: no channel is opened." in cli("read", "The museum opened").out


def test_read_shows_an_abstention(heard: dict[str, Any], cli: Cli) -> None:
    heard["says"] = opinion(status="abstained", judgement=None, choices={}, backend=None, precision=None,
                            reason="invalid twice")  # fmt: skip
    said = cli("read", "x", "--json")
    assert (said.json["status"], said.json["reason"], said.json["event"], said.json["factors"]) == (
        "abstained", "invalid twice", None, {})  # fmt: skip
    assert "abstained: invalid twice" in cli("read", "x").out


def test_read_takes_stdin(heard: dict[str, Any], cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Öl steigt".encode())))
    assert cli("read", "-").code == 0
    assert heard["text"] == "Öl steigt"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))
    assert cli("read", "-").code == 2

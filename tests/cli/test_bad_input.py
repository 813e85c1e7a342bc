"""Whatever is wrong with the input, the error names it and its mend, exits with 2, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Cli

STORY: dict[str, Any] = {
    "title": "A test", "narrative": "Oil rises.", "horizon": 10, "as_of": "2022-06-30",
    "sources": [{"id": "a", "publisher": "P", "published_at": "2022-06-29", "url": "https://example.com/a",
                 "text": "Oil rises."}],
}  # fmt: skip
HEADER = "id,quantity,market_value,currency,asset_class,duration\n"
Arguments = Callable[[Path], list[str]]


@dataclass(frozen=True)
class Bad:
    """One kind of bad input. `names` is what the message or the mend has to say; `environ` is set before."""

    id: str
    arguments: Arguments
    names: str
    kind: str = "bad_input"
    environ: Mapping[str, str] = field(default_factory=dict)
    config: str | None = None


def story(**changes: Any) -> Arguments:
    """A scenario with fields changed, or dropped where the change is None."""

    def write(folder: Path) -> list[str]:
        data = {key: value for key, value in {**STORY, **changes}.items() if value is not None}
        return ["run", _write(folder / "story.yaml", yaml.safe_dump(data))]

    return write


def story_text(content: str | bytes) -> Arguments:
    return lambda folder: ["run", _write(folder / "story.yaml", content)]


def portfolio(content: str, name: str = "book.csv") -> Arguments:
    return lambda folder: ["run", "hormuz-blockade", "--portfolio", _write(folder / name, content)]


def rows(*lines: str) -> Arguments:
    return portfolio(HEADER + "\n".join(lines) + "\n")


def prices(content: str) -> Arguments:
    return lambda folder: ["run", "hormuz-blockade", "--prices", _write(folder / "prices.csv", content)]


def limits(content: str) -> Arguments:
    return lambda folder: ["run", "hormuz-blockade", "--limits", _write(folder / "limits.yaml", content)]


def command(*arguments: str) -> Arguments:
    return lambda folder: list(arguments)


def run(*arguments: str) -> Arguments:
    return command("run", "hormuz-blockade", *arguments)


def _write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


KINDS = [
    Bad("scenario-missing", command("run", "no/such.yaml"), "'no/such.yaml'"),
    Bad("scenario-misspelt", command("run", "hormuz-blokade"), "did you mean 'hormuz-blockade'"),
    Bad("scenario-is-a-folder", lambda folder: ["run", str(folder)], "is a folder"),
    Bad("scenario-not-yaml", story_text("title: [a\nhorizon: 3\n"), "story.yaml:2: not YAML"),
    Bad("scenario-not-utf8", story_text(b"title: \xff\xfe\n"), "UTF-8"),
    Bad("scenario-empty", story_text(""), "a scenario is a mapping"),
    Bad("scenario-a-list", story_text("- title\n- narrative\n"), "a scenario is a mapping"),
    Bad("field-missing", story(narrative=None), "field 'narrative'"),
    Bad("field-of-wrong-type", story(horizon="soon"), "field 'horizon'"),
    Bad("field-unknown", story(horison=3), "field 'horison'"),
    Bad("source-id-twice", story(sources=STORY["sources"] * 2), "duplicate source id: a"),
    Bad("date-unreadable", story(as_of="yesterday"), "field 'as_of'"),
    Bad("horizon-zero", story(horizon=0), "field 'horizon'"),
    Bad("factor-unknown", story(shocks=[{"factor": "OIL", "move": "+4%"}]), "field 'shocks.0.factor'"),
    Bad("shock-unit-unreadable", story(shocks=[{"factor": "OIL_WTI", "move": "+40 dollars"}]), "'+40 dollars'"),
    Bad("shock-unit-of-another-factor", story(shocks=[{"factor": "RATE_US_10Y", "move": "+4%"}]), "'+75bp'"),
    Bad("shock-twice", story(shocks=[{"factor": "GOLD", "move": "+4%"}] * 2), "duplicate shock: GOLD"),
    Bad("replay-backwards", story(replay={"start": "2020-03-01", "end": "2020-02-01"}), "'end' must come after"),
    Bad("replay-past-as-of", story(replay={"start": "2022-06-01", "end": "2022-07-29"}), "'replay.end'", "look_ahead"),
    Bad("budget-in-scenario-zero", story(budget={"seconds": 0}), "field 'budget.seconds'"),
    Bad("portfolio-missing", run("--portfolio", "no.csv"), "'no.csv'"),
    Bad("portfolio-suffix", portfolio(HEADER, "book.xls"), "'.xls'"),
    Bad("portfolio-empty", portfolio(""), "is empty"),
    Bad("portfolio-column-missing", portfolio("id,quantity,currency\nAAPL,1,USD\n"), "no column 'asset_class'"),
    Bad("portfolio-column-misspelt", portfolio(HEADER.replace("duration", "durration") + "AAPL,1,,USD,equity,\n"),
        "'durration' may be 'duration'"),
    Bad("portfolio-number-of-two-readings", portfolio("Symbol,Qty,Ccy\nAAPL,1.234,USD\n"), "portfolio check"),
    Bad("portfolio-id-twice", rows("AAPL,1,,USD,equity,", "AAPL,2,,USD,equity,"), "already in row 2"),
    Bad("portfolio-nan", rows("AAPL,NaN,,USD,equity,"), "row 2, column 'quantity'"),
    Bad("portfolio-not-a-number", rows("AAPL,many,,USD,equity,"), "'many' is not a number"),
    Bad("portfolio-no-value", rows("AAPL,,,USD,equity,"), "neither is given"),
    Bad("portfolio-asset-class", rows("AAPL,1,,USD,meme,"), "'meme'"),
    Bad("portfolio-bond-without-duration", rows("UST,,100,USD,bond,"), "column 'duration'"),
    Bad("portfolio-unpriceable", rows("NOPE,1,,USD,equity,"), "NOPE"),
    Bad("price-zero", prices("date,ZZZ\n2022-06-28,1.0\n2022-06-29,0\n"), "'ZZZ' is 0 on 2022-06-29"),
    Bad("price-not-a-number", prices("date,ZZZ\n2022-06-27,1\n2022-06-28,x\n2022-06-29,2\n"), "row 3, column 'ZZZ'"),
    Bad("price-day-unreadable", prices("date,ZZZ\nMonday,1\n"), "'Monday' is not a date"),
    Bad("price-name-clash", prices("date,AAPL\n2022-06-28,1.0\n2022-06-29,2.0\n"), "'AAPL'"),
    Bad("price-file-missing", run("--prices", "no.csv"), "'no.csv'"),
    Bad("limits-missing", run("--limits", "no.yaml"), "'no.yaml'"),
    Bad("limits-negative", limits("version: 1\nloss_by_factor:\n  GOLD: -5.0\n"), "limits.yaml:3"),
    Bad("budget-unreadable", run("--budget", "20 minutes"), "'20 minutes'"),
    Bad("budget-twice", run("--budget", "20s,30s"), "given twice"),
    Bad("budget-of-nothing", run("--budget", "0tokens"), "'0tokens' allows nothing"),
    Bad("budget-negative", run("--budget", "-5J"), "'-5J' is impossible"),
    Bad("budget-nan", run("--budget", "nans"), "'nans' is impossible"),
    Bad("budget-endless", run("--budget", "9" * 400 + "kJ"), "is impossible"),
    Bad("budget-more-deep", run("--budget", "10tokens,20deep"), "deep tokens count as tokens"),
    Bad("budget-twice-joules", run("--budget", "2kJ,20J"), "joules are given twice"),
    Bad("budget-points", run("--budget", "1.2.3s"), "holds no number"),
    Bad("budget-half-a-token", run("--budget", "1.5tokens"), "whole number"),
    Bad("as-of-unreadable", run("--as-of", "30.06.2022"), "'30.06.2022'"),
    Bad("as-of-before-all-data", lambda folder: [*rows("AAPL,1,,USD,equity,")(folder), "--as-of", "1950-01-02"],
        "1950-01-02"),
    Bad("seed-negative", run("--seed", "-1"), "--seed"),
    Bad("fail-on-unknown", run("--fail-on", "anything"), "anything"),
    Bad("option-unknown", run("--portofolio", "x.csv"), "--portofolio"),
    Bad("argument-missing", command("run"), "SCENARIO"),
    Bad("command-unknown", command("stress"), "stress"),
    Bad("model-missing", run(), "no model at", environ={"FINLLM_MODEL": "/no/such.gguf"}),
    Bad("model-not-gguf", run(), "is not a GGUF file", environ={"FINLLM_MODEL": __file__}),
    Bad("precision-unknown", run(), "FINLLM_EDGE_PRECISION", environ={"FINLLM_EDGE_PRECISION": "Q3"}),
    Bad("threads-zero", run(), "FINLLM_THREADS", environ={"FINLLM_THREADS": "0"}),
    Bad("home-is-a-file", run(), "is not a folder", environ={"FINLLM_HOME": __file__}),
    Bad("config-not-toml", run(), "config.toml", config="threads = = 2\n"),
    Bad("config-key-unknown", run(), "'thread'", config="thread = 2\n"),
    Bad("resume-unknown-run", command("resume", "20220101-000000-nothing-aaaa"), "'finllm runs list'"),
    Bad("resume-answer-unknown", command("resume", "x", "--answer", "maybe"), "maybe"),
    Bad("trace-unknown-run", command("trace", "20220101-000000-nothing-aaaa"), "'finllm runs list'"),
    Bad("event-empty", command("read", "  "), "the event is empty"),
    Bad("event-too-long", command("read", "oil " * 6000), "shorten it"),
]  # fmt: skip


@pytest.mark.parametrize("bad", KINDS, ids=lambda bad: bad.id)
def test_names_the_thing_and_the_mend(
    bad: Bad, cli: Cli, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in bad.environ.items():
        monkeypatch.setenv(name, value)
    if bad.config is not None:
        home.mkdir()
        (home / "config.toml").write_text(bad.config)
    out = tmp_path / "out"
    arguments = bad.arguments(tmp_path)
    if arguments[0] in ("run", "resume"):
        arguments += ["--out", str(out)]

    said = cli(*arguments)
    assert said.code == 2
    assert said.out == ""
    message, fix = said.err.removeprefix("error: ").split("\n  fix: ")
    assert bad.names in said.err
    assert fix.strip()

    as_json = cli(*arguments, "--json")
    assert as_json.code == 2
    assert as_json.json == {"error": {"kind": bad.kind, "message": message, "fix": fix.strip()}}

    assert not out.exists()
    assert not (home / "runs").exists()
    assert not (home / "ledger.sqlite").exists()


@pytest.mark.parametrize("where", ["", "inside"])
def test_out_that_cannot_be_a_folder_is_refused_before_the_run(cli: Cli, tmp_path: Path, where: str) -> None:
    file = tmp_path / "taken"
    file.write_text("mine")
    said = cli("run", "hormuz-blockade", "--out", file / where, "--json")
    assert said.code == 2
    assert "is not a folder" in said.json["error"]["message"]
    assert file.read_text() == "mine"


@pytest.mark.parametrize("folder", [".", "/"])
@pytest.mark.parametrize("command", [
    ("portfolio", "check"), ("stress", "--shock", "EQUITY_US=-1%", "-p"), ("run", "hormuz-blockade", "-p"),
    ("hedge", "--var", "1%", "--with"), ("hedge", "--var", "1%", "-p"),
], ids=" ".join)  # fmt: skip
def test_a_folder_without_a_name_is_bad_input_as_any_other(cli: Cli, command: tuple[str, ...], folder: str) -> None:
    shown = cli(*command, folder)
    assert shown.code == 2
    assert "is a folder, not a portfolio" in shown.err

"""Scenario files: what is wrong is named by file, line and field."""

from __future__ import annotations

import datetime as dt
import json
import time
from pathlib import Path

import pytest

from finllm.errors import InputError
from finllm.scenarios import SCENARIOS_DIR
from finllm.tools.data.scenario import Scenario, load_scenario

HEAD = "title: Hormuz\nnarrative: The strait closes.\nhorizon: 20\nas_of: 2022-06-30\n"
SOURCE = (
    "- id: a\n  publisher: Reuters\n  published_at: 2022-06-29T12:00:00+02:00\n"
    "  url: https://example.org\n  text: Oil rose.\n"
)


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "story.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(tmp_path: Path, text: str | bytes) -> InputError:
    with pytest.raises(InputError) as refusal:
        load_scenario(written(tmp_path, text))
    assert refusal.value.exit_code == 2
    assert refusal.value.fix
    assert str(tmp_path / "story.yaml") in refusal.value.message
    return refusal.value


def test_a_whole_scenario_is_read(tmp_path: Path) -> None:
    text = (
        HEAD
        + "approved_by: Risk committee\nsources:\n"
        + SOURCE
        + "shocks:\n- {factor: OIL_WTI, move: +40%}\n- {factor: VIX, move: +2sigma}\n"
        + "budget: {seconds: 60, tokens: 5000, deep_tokens: 0}\nreplay: {start: 2008-09-12, end: 2008-10-10}\n"
    )
    scenario = load_scenario(written(tmp_path, text))
    assert scenario.sources[0].published_at == dt.datetime(2022, 6, 29, 10, tzinfo=dt.UTC)
    assert [entry.parsed().amount for entry in scenario.shocks] == [0.4, 2.0]
    assert Scenario.model_validate(json.loads(scenario.model_dump_json())) == scenario


def test_a_time_without_a_zone_is_utc(tmp_path: Path) -> None:
    text = HEAD + "sources:\n" + SOURCE.replace("+02:00", "")
    assert load_scenario(written(tmp_path, text)).sources[0].published_at == dt.datetime(2022, 6, 29, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize("path", sorted(SCENARIOS_DIR.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_scenario_is_valid(path: Path) -> None:
    assert load_scenario(path).title


@pytest.mark.parametrize(
    ("text", "line", "field"),
    [
        (HEAD.replace("title: Hormuz\n", ""), 1, "title"),
        (HEAD.replace("20", "twenty"), 3, "horizon"),
        (HEAD.replace("20", "0"), 3, "horizon"),
        (HEAD.replace("20", "251"), 3, "horizon"),
        (HEAD.replace("2022-06-30", "last friday"), 4, "as_of"),
        (HEAD.replace("The strait closes.", '""'), 2, "narrative"),
        (HEAD + "severity: high\n", 5, "severity"),
        (
            HEAD + "sources:\n" + SOURCE + SOURCE.replace("id: a", "id: b").replace("Oil rose.", '""'),
            15,
            "sources.1.text",
        ),
        (HEAD + "sources:\n" + SOURCE.replace("id: a", "id: a b"), 6, "sources.0.id"),
        (HEAD + "sources:\n" + SOURCE.replace("  url: https://example.org\n", ""), 6, "sources.0.url"),
        (HEAD + "sources: none\n", 5, "sources"),
        (HEAD + "shocks:\n- {factor: 0IL, move: +40%}\n", 6, "shocks.0.factor"),
        (HEAD + "shocks:\n- {factor: COBALT, move: forty}\n", 6, "shocks.0"),
        (HEAD + "factors: [COBALT, COBALT]\n", 1, "scenario"),
        (HEAD + "shocks:\n- factor: OIL_WTI\n  move: 40\n", 7, "shocks.0.move"),
        (HEAD + "shocks:\n- {factor: OIL_WTI, move: +40bp}\n", 6, "shocks.0"),
        (HEAD + "budget: {seconds: -1}\n", 5, "budget.seconds"),
        (HEAD + "budget:\n  seconds: 60\n  coffee: 3\n", 7, "budget.coffee"),
        (HEAD + "replay: {start: 2008-10-10, end: 2008-09-12}\n", 5, "replay"),
    ],
)
def test_a_bad_field_is_named_with_its_line(tmp_path: Path, text: str, line: int, field: str) -> None:
    message = refused(tmp_path, text).message
    assert f"story.yaml:{line}: field '{field}': " in message


def test_every_bad_field_is_named_at_once(tmp_path: Path) -> None:
    message = refused(tmp_path, HEAD.replace("20", "many").replace("2022-06-30", "soon")).message
    assert [line.split(": field ")[1].split(":")[0] for line in message.splitlines()] == ["'horizon'", "'as_of'"]


def test_a_shock_in_the_wrong_unit_shows_how_to_write_it(tmp_path: Path) -> None:
    assert "write '+40%' or '-3sigma'" in refused(tmp_path, HEAD + "shocks:\n- {factor: GOLD, move: +5bp}\n").message


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (HEAD + "sources:\n" + SOURCE + SOURCE, "duplicate source id: a"),
        (HEAD + "shocks:\n- {factor: GOLD, move: +5%}\n- {factor: GOLD, move: +6%}\n", "duplicate shock: GOLD"),
    ],
)
def test_duplicates_are_named(tmp_path: Path, text: str, named: str) -> None:
    assert named in refused(tmp_path, text).message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (HEAD + "sources: [\n", 6),
        (HEAD + "title: 'open\n", 6),
        (HEAD + "---\ntitle: another\n", 5),
        (HEAD + "x: !!python/object/apply:os.system ['true']\n", 5),
        (HEAD + "\tx: 1\n", 5),
    ],
)
def test_what_is_not_yaml_is_named_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    assert f"story.yaml:{line}: not YAML: " in refused(tmp_path, text).message


@pytest.mark.parametrize("text", ["", "- a list\n", "words\n", "null\n"])
def test_what_is_no_mapping_points_to_an_example(tmp_path: Path, text: str) -> None:
    assert "finllm scenarios list" in refused(tmp_path, text).fix


def test_bytes_that_are_no_text_and_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    assert "UTF-8" in refused(tmp_path, b"\xff\xfe\x00title").fix
    with pytest.raises(InputError, match=r"no scenario at .*gone\.yaml") as refusal:
        load_scenario(tmp_path / "gone.yaml")
    assert "finllm scenarios list" in refusal.value.fix
    with pytest.raises(InputError, match="cannot read"):
        load_scenario(tmp_path)


def test_aliases_that_double_thirty_times_are_refused_at_once(tmp_path: Path) -> None:
    """Each mapping is looked at once, so that a billion ways to it take no longer than one."""
    doubled = [f"a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}}}" for n in range(1, 31)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(["title: A", "narrative: B", "horizon: 5", "as_of: 2022-06-30", "a0: &a0 {z: 1}",
                               *doubled]))  # fmt: skip
    started = time.process_time()
    with pytest.raises(InputError, match="is no field of this"):
        load_scenario(path)
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("as_of: 2022-13-45", "field 'as_of'"),
        ("horizon: true", "field 'horizon'"),
        ("title: again", "the key 'title' stands twice"),
        ("budget: {seconds: .inf}", "field 'budget.seconds'"),
        ("sources: " + "[" * 3000, "nested too deeply"),
    ],
)
def test_what_yaml_would_let_through_is_refused_by_line(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    kept = [text for text in ("title: A", "narrative: B", "horizon: 5", "as_of: 2022-06-30")
            if text.split(":", 1)[0] != line.split(":", 1)[0] or line.startswith("title")]  # fmt: skip
    path.write_text("\n".join([*kept, line]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"bad\.yaml:") as caught:
        load_scenario(path)
    assert said in caught.value.message


def test_a_budget_may_be_one_line_as_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "story.yaml"
    path.write_text(HEAD + "budget: 20s,500deep,2kJ\n", encoding="utf-8")
    budget = load_scenario(path).budget
    assert budget is not None
    assert (budget.seconds, budget.deep_tokens, budget.joules) == (20, 500, 2000)
    assert "'20 minutes'" in refused(tmp_path, HEAD + "budget: 20 minutes\n").message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD.replace("20", "twenty"), "field 'horizon': 'twenty' is not a whole number"),
        (HEAD.replace("20", "251"), "field 'horizon': '251' is not at most 250"),
        (HEAD.replace("2022-06-30", "soon"), "field 'as_of': 'soon' is not a date; write it as 2022-06-30"),
        (HEAD.replace("Hormuz", "NO"), "field 'title': NO is read as yes or no; write it in quotes: 'NO'"),
        (HEAD.replace("Hormuz", "2022"), "field 'title': 2022 is read as a number; write it in quotes: '2022'"),
        (HEAD + "sources: none\n", "field 'sources': is not a list"),
        (HEAD + "replay: 2008\n", "field 'replay': is not a mapping"),
        (HEAD + "shocks:\n- {factor: VIX, mov: +5points}\n", "field 'shocks.0.mov': is no field of this; did you mean "
                                                             "'move'?"),
        (HEAD + "propagate: perhaps\n", "field 'propagate': 'perhaps' is not true or false"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_plain_words(tmp_path: Path, text: str, says: str) -> None:
    message = refused(tmp_path, text).message
    assert says in message
    assert "Input should" not in message

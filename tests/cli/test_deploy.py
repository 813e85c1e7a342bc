"""`finllm deploy`: what it refuses, and what it says of where a home stands; the steps are in evaluation's tests."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Cli


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("promote",), "no candidate to promote"),
        (("rollback",), "nothing was promoted"),
        (("promote", "--shadow", "20%"), "goes with a model or an adapter"),
        (("none",), "is tried before it is served"),
        (("none", "--shadow", "0%"), "is no share"),
        (("none", "--shadow", "120%"), "is no share"),
        (("no-such-model", "--shadow", "20%"), "no-such-model"),
    ],
)
def test_a_step_that_cannot_be_taken_says_why_and_changes_nothing(
    arguments: tuple[str, ...], told: str, cli: Cli
) -> None:
    said = cli("deploy", *arguments, "--json")
    assert said.code == 2
    assert told in said.json["error"]["message"]
    assert cli("deploy", "status", "--json").json["served"] is None


def test_status_says_what_answers_where_nothing_was_deployed(cli: Cli) -> None:
    found = cli("deploy", "status", "--json").json
    assert (found["served"], found["before"], found["candidate"]) == (None, [], None)
    assert found["answers"]["adapter"] == "auto"
    told = cli("deploy", "status").out
    assert "by the settings alone" in told
    assert "candidate: none" in told

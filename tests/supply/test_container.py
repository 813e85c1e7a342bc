"""The Containerfile says what finllm promises of its container; 'make container-steps' carries it out."""

from __future__ import annotations

import pytest

from supply.check import ROOT
from supply.containerfile import Stage, read


@pytest.fixture
def stages() -> list[Stage]:
    return read((ROOT / "Containerfile").read_text(encoding="utf-8"))


def test_the_container_runs_as_nobody_in_particular_and_needs_no_network(stages: list[Stage]) -> None:
    build, last = stages
    (user,) = last.last("USER")
    assert all(int(id) >= 10_000 for id in user.split(":")), "a number, so that whoever runs it can see it is no root"
    assert (last.last("ENTRYPOINT"), last.last("CMD"), last.last("VOLUME")) == (
        ("finllm",),
        ("doctor",),
        ("/home/finllm",),
    )
    assert "HF_HUB_OFFLINE=1" in [word for step in last.steps if step.kind == "ENV" for word in step.words]
    assert not [step for step in last.steps if step.kind == "RUN" and "install" in step.words[0]], "all is built before"
    assert [step.words for step in last.steps if step.kind == "COPY"] == [
        ("--from=build", "/opt/finllm", "/opt/finllm")
    ]
    assert build.base == last.base
    assert build.base.startswith("python:3.11-")


def test_what_was_tested_is_what_is_installed(stages: list[Stage]) -> None:
    (line,) = [step.words[0] for step in stages[0].steps if "pip install" in step.words[0]]
    assert "--constraint constraints.txt" in line


def test_nothing_of_a_checkout_s_own_goes_into_the_image() -> None:
    left_out = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {".git", ".venv", "build", "dist"} <= set(left_out)


@pytest.mark.parametrize("line", ["ADD a b", "HEALTHCHECK NONE", 'SHELL ["sh"]', "run true"])
def test_an_instruction_that_nobody_carries_out_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match="is not known"):
        read(f"FROM base AS one\n{line}\n")


def test_stages_lines_that_go_on_and_lists_are_read() -> None:
    first, second = read("""# about
ARG V=1
FROM base:${V} AS one
RUN a && \\
    b
FROM base:${V}
ENV A="x y" B=z
CMD ["run", "it"]
""")
    assert (first.base, first.name, first.steps[0].words[0].split()) == ("base:1", "one", ["a", "&&", "b"])
    assert (second.last("ENV"), second.last("CMD"), second.last("USER")) == (("A=x y", "B=z"), ("run", "it"), ())

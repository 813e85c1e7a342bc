"""Pages and pictures that are made from the code: they say what the code says."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs import channels, commands, rooms
from finllm.graphs.flow import NODES

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_page_of_channels_is_what_the_table_says() -> None:
    channels.main("--check")


def test_the_page_of_commands_is_what_help_says() -> None:
    commands.main("--check")


def test_the_page_of_commands_has_every_command() -> None:
    page = commands.PAGE.read_text(encoding="utf-8")
    for name in ("run", "stress", "audit verify", "models export hf"):
        assert f"\n## finllm {name}\n" in page


def test_the_picture_of_the_rooms_is_in_the_order_that_imports_are_held_to() -> None:
    rooms.main("--check")
    order = [name for name, _purpose in rooms.rooms(ROOT)]
    assert order[0] == "src/finllm/cli/"
    assert order.index("graphs/") < order.index("agents/") < order.index("tools/")
    assert all(purpose for _name, purpose in rooms.rooms(ROOT))


def test_the_picture_of_a_run_shows_every_node_of_the_graph() -> None:
    drawn = (ROOT / "docs" / "img" / "run.svg").read_text(encoding="utf-8")
    assert not [name for name in NODES if f">{name.replace('_', '-')}</text>" not in drawn]


@pytest.mark.parametrize("door", ["session", "chat"])
def test_a_recording_stands_alone_and_shows_figures_with_their_rows(door: str) -> None:
    drawn = (ROOT / "docs" / "img" / f"{door}.svg").read_text(encoding="utf-8")
    shown = "".join(ElementTree.fromstring(drawn).itertext()).replace("\xa0", " ")
    assert "url(http" not in drawn, "a font would be fetched"
    assert "src=" not in drawn
    assert re.search(r"[0-9,]+ USD \[E[0-9]+\]", shown)
    assert f"img/{door}.svg" in (ROOT / "docs" / f"{door}.md").read_text(encoding="utf-8")
    assert "/tmp" not in shown

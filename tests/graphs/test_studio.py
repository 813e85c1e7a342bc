"""LangGraph's studio opens what `langgraph.json` names, and sees the graph that runs."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

from finllm.graphs.flow import NODES

ROOT = Path(__file__).resolve().parents[2]


def test_what_the_file_names_is_the_graph_of_a_run() -> None:
    held = json.loads((ROOT / "langgraph.json").read_text(encoding="utf-8"))
    (named,) = held["graphs"].values()
    module, _, name = named.partition(":")
    drawn = getattr(importlib.import_module(module), name)().get_graph()
    assert set(NODES) <= set(drawn.nodes)
    assert {edge.source for edge in drawn.edges if edge.target == "sanity_checker"} == {"market_signal", "narrative"}

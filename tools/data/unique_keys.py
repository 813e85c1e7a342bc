"""YAML files in which no key stands twice: of two values the last would win unseen."""

from __future__ import annotations

from typing import Any

import yaml


def refuse_repeated_keys(root: Any) -> None:
    """Look at every mapping once, however many aliases lead to it.

    Errors: MarkedYAMLError at a key that stands twice in one mapping, of which YAML would keep the last.
    """
    waiting: list[Any] = [root]
    visited: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in visited:
            continue
        visited.add(id(node))
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if str(key.value) in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
                    )
                seen.add(str(key.value))
                waiting.append(value)
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)

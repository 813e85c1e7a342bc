"""The table of `--explain-placement`: where each task ran, what was refused and why, predicted beside actual."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finllm.cli.display.report import table, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import RenderableType

    from finllm.review.placements import PlacementRow


def placement_view(rows: Sequence[PlacementRow]) -> RenderableType:
    """A row a placement; seconds are those of the model's work, joules with where they come from."""
    from rich.console import Group

    names = short_names({name for row in rows for name in (row.chosen, row.twin or row.chosen, *row.refused)})
    legend = [text(f"{short} is {name}", "dim") for name, short in sorted(names.items()) if short != name]
    grid = table(
        ("task", "agent", "chosen", "refused", "s predicted", "s", "J predicted", "J", "ended"),
        [
            (row.task, row.agent, _shortened(row.where, names) + (f"\n{row.why}" if row.why else ""),
             "\n".join(f"{names[name]}: {_shortened(why, names)}" for name, why in sorted(row.refused.items())) or "-",
             _number(row.predicted_seconds), _number(None if row.actual is None else row.actual.seconds),
             _number(row.predicted_joules),
             "-" if row.joules is None else f"{row.joules.value:.3g} {row.joules.provenance}", row.ended)
            for row in rows
        ],
        right=(4, 5, 6),
    )  # fmt: skip
    return Group(text("Placements", "bold cyan"), grid, *legend)


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Each backend's name without what all of the same form have in common: tier and precision, where these tell."""
    names = set(names)
    short = {name: ":".join((name.split(":")[0], name.split(":")[-1])) for name in names if name.count(":") >= 2}
    unique = {name: one for name, one in short.items() if list(short.values()).count(one) == 1 and one not in names}
    return {name: unique.get(name, name) for name in names}


def _shortened(why: str, names: Mapping[str, str]) -> str:
    for name, short in names.items():
        why = why.replace(name, short)
    return why


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"

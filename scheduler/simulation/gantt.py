"""A Gantt chart of a simulated run: who had which slot of which backend, as a drawing that needs no script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finllm.errors import InputError
from finllm.scheduler.simulation.run import TaskOutcomes

MOST = 3_000
"""Stays that are drawn; of a longer run the first."""


def gantt_spec(out: TaskOutcomes) -> dict[str, Any]:
    """A Vega-Lite chart: a bar for each stay on a slot, coloured by agent; grey where its answer was lost."""
    import altair as alt

    names = [spec.name for spec in out.fleet.specs]
    rows = [
        {
            "slot": f"{names[span.backend]} {span.slot + 1}",
            "from": span.start,
            "to": span.end,
            "agent": out.arrivals[span.task].agent if span.committed else "lost",
        }
        for span in out.spans[:MOST]
    ]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("from:Q", title="seconds"),
            x2="to:Q",
            y=alt.Y("slot:N", title=None, sort=None),
            color=alt.Color("agent:N", title="agent"),
        )
        .properties(width=900, title="Placements")
    )
    return chart.to_dict()


def write_gantt(path: Path, out: TaskOutcomes) -> None:
    """Write the chart as SVG, or PNG by the file's ending. Errors: InputError for another ending or a bad path."""
    import vl_convert

    if path.suffix not in (".svg", ".png"):
        raise InputError(f"cannot draw {str(path)!r}", fix="name a file that ends in .svg or .png")
    spec = gantt_spec(out)
    drawn = (
        vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]).encode()
        if path.suffix == ".svg"
        else vl_convert.vegalite_to_png(spec, scale=1.5, allowed_base_urls=[])
    )
    try:
        path.write_bytes(drawn)
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r}: {error}", fix="choose another place with --gantt") from error

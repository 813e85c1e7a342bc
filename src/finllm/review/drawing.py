"""Draws charts in a process of its own: a browser's engine draws, which dies where it is denied memory."""

from __future__ import annotations

import base64
import json
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finllm.errors import lacking
from finllm.review.charts import INK, Chart, plain

PNG_SCALE = 2.0
LONGEST = 120.0
"""s that all charts of a page may take to draw."""
ADDRESS_SPACE = 64
"""GiB that the engine reserves as it starts, most of which it never touches."""
_PAINTER = Path(__file__).with_name("painter.py")
_NAMESPACE = re.compile(r"""\sxmlns(?::\w+)?=("[^"]*"|'[^']*')""")


@dataclass(frozen=True)
class Picture:
    """A chart as SVG, which names no address and needs no script, and as PNG; or `why` it could not be drawn."""

    chart: Chart
    svg: str = ""
    png: bytes = b""
    why: str | None = None


def draw(charts: Sequence[Chart]) -> tuple[Picture, ...]:
    """Every chart as a picture. Where they cannot be drawn, each says why: a report stands without its charts."""
    if not charts:
        return ()
    asked = json.dumps([{"svg": one.spec, "png": one.spec | _titled(one), "scale": PNG_SCALE} for one in charts])
    try:
        child = subprocess.run([sys.executable, "-P", str(_PAINTER)], input=asked.encode(), capture_output=True,
                               timeout=LONGEST, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        return _undrawn(charts, f"it took longer than {LONGEST:.0f} s")
    except OSError as error:
        return _undrawn(charts, plain(f"{error}; {lacking(error) or 'mend that'}"))
    if child.returncode != 0:
        return _undrawn(charts, _why(child.returncode, child.stderr.decode(errors="replace")))
    drawn = json.loads(child.stdout)
    return tuple(Picture(chart, _NAMESPACE.sub("", one["svg"]), base64.b64decode(one["png"]))
                 for chart, one in zip(charts, drawn, strict=True))  # fmt: skip


def undrawn(pictures: Sequence[Picture]) -> str | None:
    """Which charts were not drawn and why, in one sentence; None where all were."""
    missing = [one for one in pictures if one.why is not None]
    if not missing:
        return None
    return f"not drawn: {', '.join(one.chart.name for one in missing)}: {missing[0].why}"


def _titled(chart: Chart) -> dict[str, Any]:
    """A file of its own needs its title, which on a page stands above it."""
    return {"title": {"text": chart.title, "anchor": "start", "color": INK, "fontSize": 15, "offset": 12}}


def _undrawn(charts: Sequence[Chart], why: str) -> tuple[Picture, ...]:
    return tuple(Picture(chart, why=why) for chart in charts)


def _why(code: int, said: str) -> str:
    """Why the process that draws ended so, in words, with the mend where it is known."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < ADDRESS_SPACE << 30:
        return (f"drawing reserves {ADDRESS_SPACE} GiB of address space, and 'ulimit -v' allows "
                f"{limit / (1 << 30):.1f} GiB; raise that limit")  # fmt: skip
    if code == -signal.SIGKILL:
        return "the process that draws was killed, as for lack of memory; free some"
    last = plain(said.strip().rpartition("\n")[2])[:200]
    return f"the process that draws ended with {code}: {last}; {lacking(OSError(last)) or 'run the command again'}"

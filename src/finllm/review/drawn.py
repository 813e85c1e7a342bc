"""Charts drawn before, remembered by the figures that they show: a cache, and each drawn again is the same bytes.

Drawing starts a browser's engine, which takes longer than all else of a run that is answered from the record.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from finllm.files import write_atomically
from finllm.made_by import made_by
from finllm.review.charts import Chart
from finllm.review.drawing import Picture, draw

KEPT = 200
"""Sets of pictures that are kept, the newest; a run's takes about 150 KB."""


class DrawnBefore:
    """Pictures by what they show, one file for each set of them. What cannot be read or written is drawn again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def pictures(self, shown: Any, charts: Callable[[], Sequence[Chart]]) -> tuple[Picture, ...]:
        """The pictures of `charts`, which show `shown` (as JSON) and nothing else."""
        about = json.dumps(shown)
        path = self._folder / f"{hashlib.sha256(f'{_painters()} {about}'.encode()).hexdigest()}.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            return _read(path.read_bytes())
        made = draw(charts())
        if made and all(one.why is None for one in made):
            with suppress(OSError):
                write_atomically(path, _written(made))
                self._forget_old()
        return made

    def _forget_old(self) -> None:
        files = sorted(self._folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
        for file in files[KEPT:]:
            file.unlink(missing_ok=True)


@cache
def _painters() -> str:
    here = Path(__file__).parent
    return made_by([here / name for name in ("charts.py", "drawing.py", "painter.py", "html.py")],
                   ["altair", "vl-convert-python"])  # fmt: skip


def _written(pictures: Sequence[Picture]) -> bytes:
    rows = [{"chart": asdict(one.chart), "svg": one.svg, "png": base64.b64encode(one.png).decode()} for one in pictures]
    body = json.dumps(rows)
    return json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "pictures": body}).encode()


def _read(data: bytes) -> tuple[Picture, ...]:
    """Errors: ValueError, KeyError or TypeError for a file that is not as it was written."""
    found = json.loads(data)
    body = found["pictures"]
    if hashlib.sha256(body.encode()).hexdigest() != found["sha256"]:
        raise ValueError("spoilt")
    return tuple(Picture(Chart(**one["chart"]), one["svg"], base64.b64decode(one["png"])) for one in json.loads(body))

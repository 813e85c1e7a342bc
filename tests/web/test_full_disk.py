"""On a full disk nobody signs, and everybody reads on; with space made, the signature is given, and once."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.test_full_disk import disk, used
from tests.memory.desks import PHRASE
from tests.web.conftest import WAIT, Made, copied, serving_at

ROOM = 256 << 20


def resize(folder: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write until nothing more is taken."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as rest:
        while True:
            rest.write(b"0" * 4096)


@pytest.mark.slow
def test_signing_is_refused_and_reading_goes_on(made: Made, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", ROOM) as folder, serving_at(copied(made, folder / "home")) as served:
        client, other, item, run = served.signed_in("rev1"), served.signed_in("rev2"), made.item, made.runs[-1]
        report = served.serving.reviews.record.get(item).row.report_sha256
        form = {"phrase": PHRASE, "reason": "read it", "report": report}
        assert client.get(f"/item/{item}").status_code == 200
        resize(folder, used(folder))
        fill(folder / "rest")
        assert served.post(client, f"/item/{item}/sign", **form).status_code == 503
        assert served.post(client, f"/item/{item}/claim").status_code == 503
        for path in ("/queue", f"/item/{item}", f"/run/{run}", f"/run/{run}?open=E5", "/runs", "/record", "/cost"):
            assert client.get(path).status_code == 200, path
        assert other.get(f"/item/{item}").status_code == 200
        assert served.serving.reviews.record.get(item).signatures == ()
        resize(folder, ROOM)
        until = time.monotonic() + WAIT
        while "rev2" not in [one.by for one in served.serving.reviews.record.looks(int(item[2:]))]:
            assert time.monotonic() < until, "a look that the disk did not take comes onto the record with space made"
            time.sleep(0.1)
        assert served.post(client, f"/item/{item}/sign", **form).status_code == 303
        assert [one.by for one in served.serving.reviews.record.get(item).signatures] == ["rev1"]

"""Carries out the Containerfile's steps without a container engine, and looks at what it then is: as root, on Linux.

    python -m supply.steps --out build/container

Each stage is a layer over this machine's own root (overlayfs in a mount namespace of its own), with this Python as the
base image's. The last stage is then entered as a container is run: its user, no rights, no network, a root that nobody
can write but for its volume and /tmp. Steps of apt-get are left to the machine. Exit codes: 0 all holds, 1 something
does not, 2 this machine or user cannot do it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from supply.containerfile import Stage, read

ROOT = Path(__file__).resolve().parent.parent
BASE = {"HOME": "/root", "LD_LIBRARY_PATH": "/usr/local/lib"}
"""What the base image has: its loader knows where the library of its Python is."""
TOOLS = ("unshare", "chroot", "setpriv")
INSIDE = "FINLLM_STEPS_INSIDE"
LONGEST = 1200
"""s that one step may take: where llama.cpp is not built yet, that is done in one."""
CHECKS = {
    "is the user of the Containerfile": 'test "$(id -u):$(id -g)" = {user}',
    "has no rights, and can get none": "grep -q '^CapEff:.0000000000000000' /proc/self/status && "
                                       "grep -q '^NoNewPrivs:.1' /proc/self/status",
    "has no network": 'test "$(tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d \' \')" = lo',
    "cannot write the root": "! touch /written 2>/dev/null && ! touch /opt/finllm/written 2>/dev/null",
    "can write its home": "touch {volume}/written && rm {volume}/written",
    "doctor finds nothing missing": "{entry} doctor --json",
    "a stress test is computed": "{entry} stress --shock EQUITY_US=-20% --json",
    "a run finishes, with a model": "{entry} run non-event --json",
    "its record is whole": "{entry} audit verify; test $? = 4",
}  # fmt: skip
"""What has to hold in the container, by the shell's line that says so. `audit verify` ends with 4 without a witness."""


@dataclass
class Layer:
    """A stage as it is carried out: what it wrote, and what its further steps have."""

    written: Path
    environment: dict[str, str]
    place: str = "/"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Carry out the Containerfile's steps without a container engine.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "container")
    options = parser.parse_args(arguments)
    if os.geteuid() != 0 or not all(map(shutil.which, TOOLS)):
        print(f"cannot be done here: it takes root, {', '.join(TOOLS)}; or a container engine", file=sys.stderr)
        return 2
    if INSIDE not in os.environ:
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "supply.steps",
                   "--out", str(options.out.resolve())]  # fmt: skip
        try:
            return subprocess.run(command, env={**os.environ, INSIDE: "1"}, check=False, cwd=ROOT).returncode
        finally:
            shutil.rmtree(options.out, ignore_errors=True)
    shutil.rmtree(options.out, ignore_errors=True)
    try:
        _mounted(Layer(options.out / "tried", {}), options.out / "try")
    except subprocess.CalledProcessError as error:
        print(f"cannot be done here: nobody may mount a layer over the root: {error}", file=sys.stderr)
        return 2
    stages = read((ROOT / "Containerfile").read_text(encoding="utf-8"))
    try:
        layer = _built(stages, options.out)
        return _looked_at(stages[-1], layer, options.out)
    except subprocess.CalledProcessError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1


def _built(stages: Sequence[Stage], out: Path) -> Layer:
    """Carry out every step of every stage; the last layer. Errors: CalledProcessError."""
    layers: dict[str, Layer] = {}
    layer = Layer(out, {})
    for at, stage in enumerate(stages):
        layer = layers[stage.name or str(at)] = Layer(out / f"stage-{at}", dict(BASE))
        layer.written.mkdir(parents=True, exist_ok=True)
        for step in stage.steps:
            began = time.monotonic()
            if step.kind == "ENV":
                layer.environment |= dict(word.split("=", 1) for word in step.words)
            elif step.kind == "WORKDIR":
                layer.place = step.words[0]
                (layer.written / layer.place.lstrip("/")).mkdir(parents=True, exist_ok=True)
            elif step.kind == "COPY":
                _copied(step.words, layer, layers)
            elif step.kind == "RUN" and not step.words[0].startswith("apt-get "):
                _run(step.words[0], layer, out / f"root-{at}")
            print(f"{time.monotonic() - began:6.1f} s  {step.kind} {' '.join(step.words)[:90]}", flush=True)
    return layer


def _copied(words: Sequence[str], layer: Layer, layers: dict[str, Layer]) -> None:
    if words[0].startswith("--from="):  # linked, not copied: what was written there is not written again
        source = layers[words[0].removeprefix("--from=")].written / words[1].lstrip("/")
        there = layer.written / words[2].lstrip("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-al", str(source), str(there)], check=True, timeout=LONGEST)
        return
    left_out = [f"--exclude={line.removeprefix('**/')}" if line.startswith("**/") else f"--exclude=./{line}"
                for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split()]  # fmt: skip
    target = str(layer.written / layer.place.lstrip("/"))
    packed = subprocess.run(["tar", "-C", str(ROOT), *left_out, "-c", "."], check=True, capture_output=True, timeout=60)
    subprocess.run(["tar", "-C", target, "--no-same-owner", "-x"], check=True, input=packed.stdout, timeout=60)


def _mounted(layer: Layer, root: Path, *, writable: bool = True) -> Path:
    """The machine's root with the layer over it, and this Python in the place of the base image's."""
    work = layer.written.with_name(f"{layer.written.name}-work")
    for folder in (layer.written, work, root):
        folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={layer.written},workdir={work}", str(root))
    if not writable:
        _mount("-o", "remount,ro", str(root))
    _mount("--bind", "-o", "ro", sys.base_prefix, str(root / "usr/local"))
    _mount("--bind", "/dev", str(root / "dev"))
    _mount("-t", "proc", "proc", str(root / "proc"))
    return root


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, timeout=60)


def _run(line: str, layer: Layer, root: Path) -> None:
    """Run a line in the layer. It is mounted only for that: what lies under a mounted layer must not change."""
    pip = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_"))}
    base = {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin", **pip}
    command = ["chroot", str(_mounted(layer, root)), "/bin/sh", "-c", f"cd {layer.place} && {line}"]
    try:
        subprocess.run(command, env={**base, **layer.environment}, check=True, timeout=LONGEST)
    finally:
        subprocess.run(["umount", "--recursive", str(root)], check=True, timeout=60)


def _looked_at(stage: Stage, layer: Layer, out: Path) -> int:
    """Enter the last stage as its user, without rights or network, on a root that nobody can write."""
    (user,), (volume,), (entry,) = stage.last("USER"), stage.last("VOLUME"), stage.last("ENTRYPOINT")
    root = _mounted(layer, out / "run", writable=False)
    home = out / "volume"
    shutil.copytree(layer.written / volume.lstrip("/"), home)
    shutil.copystat(layer.written / volume.lstrip("/"), home)
    uid, gid = user.split(":")
    os.chown(home, int(uid), int(gid))
    _mount("--bind", str(home), str(root / volume.lstrip("/")))
    _mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(root / "tmp"))
    unshare, chroot, setpriv = (shutil.which(name) or name for name in TOOLS)
    enter = [unshare, "--net", chroot, str(root), setpriv, "--reuid", uid, "--regid", gid, "--clear-groups",
             "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "/bin/sh", "-c"]  # fmt: skip
    failed = 0
    for what, line in CHECKS.items():
        said = re.sub(r"\{(\w+)\}", lambda found: {"user": user, "volume": volume, "entry": entry}[found[1]], line)
        began = time.monotonic()
        done = subprocess.run([*enter, f"cd {layer.place} && {{ {said}; }}"], env=layer.environment, check=False,
                              capture_output=True, text=True, timeout=LONGEST)  # fmt: skip
        failed += done.returncode != 0
        print(f"{time.monotonic() - began:6.1f} s  {'holds' if done.returncode == 0 else 'FAILED'}: {what}", flush=True)
        if done.returncode:
            print(f"{done.stderr[-700:]}\n{done.stdout[-700:]}")
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Which machine this is, whether a process still lives, and which processes have locked a file."""

from __future__ import annotations

import os
import platform
import pwd
from collections.abc import Sequence
from pathlib import Path

_STATE, _TICKS = 0, 19
"""Places in /proc/PID/stat, counted after the name in brackets."""
_GONE = ("Z", "X")
"""States of a process that has ended and that its parent has not looked at yet."""


def login() -> str:
    """Who runs this process, by the name that the operating system has: no variable of the environment says it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def lives(pid: int, ticks: int | None) -> bool:
    """Whether the process that had this id and start (see `ticks_of`) is there; without a start, one of this id."""
    fields = _stat(pid)
    if fields is not None:
        return fields[_STATE] not in _GONE and (ticks is None or int(fields[_TICKS]) == ticks)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def ticks_of(pid: int) -> int | None:
    """When a process started, in the kernel's ticks since boot: tells it from a later one with the same id."""
    fields = _stat(pid)
    return None if fields is None else int(fields[_TICKS])


def machine() -> str:
    """Names where process ids mean the same processes: this boot of this machine, and the container within it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def locked_by(*paths: Path) -> list[str]:
    """The processes that keep others from writing any of these files, such as `process 17 (finllm)`, by /proc/locks.

    Empty where none is found, as where the kernel does not tell.
    """
    files = {(os.major(found.st_dev), os.minor(found.st_dev), found.st_ino) for found in map(_found, paths) if found}
    try:
        lines = Path("/proc/locks").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    pids = {pid for line in lines for pid, file in _locks(line.split()) if file in files}
    return [f"process {pid} ({_name(pid)})" for pid in sorted(pids)]


def _locks(fields: Sequence[str]) -> list[tuple[int, tuple[int, int, int]]]:
    """A line of /proc/locks: `1: POSIX ADVISORY WRITE 4711 08:01:131072 120 120`; one that waits has `->` in it."""
    if len(fields) < 6 or "->" in fields or fields[3] != "WRITE":
        return []
    major, minor, inode = fields[5].split(":")
    pid = int(fields[4])
    return [(pid, (int(major, 16), int(minor, 16), int(inode)))] if pid > 0 else []


def _found(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "of another user"


def _stat(pid: int) -> list[str] | None:
    """What follows the name in /proc/PID/stat; None where there is no such process, or no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return fields if len(fields) > _TICKS else None

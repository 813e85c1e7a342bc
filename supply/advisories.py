"""Known vulnerabilities of what is installed: from a stored export of OSV, or asked of an OSV server by pip-audit."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

TIMEOUT = 900
"""Longest wait for pip-audit, s: it asks the server once for each package."""


@dataclass(frozen=True)
class Package:
    """A distribution as it is installed: its normalised name, its version without a local part."""

    name: str
    version: str

    @classmethod
    def of(cls, name: str, version: str) -> Package:
        return cls(canonicalize_name(name), version.partition("+")[0])


@dataclass(frozen=True)
class Known:
    """A known vulnerability of an installed package, and the versions that mend it."""

    package: Package
    ids: tuple[str, ...]
    mended_in: tuple[str, ...]


@dataclass
class Found:
    """What a look at the advisories gave. `unchecked`: why, by package; empty only where every one was looked at."""

    known: list[Known] = field(default_factory=list[Known])
    unchecked: dict[str, str] = field(default_factory=dict[str, str])
    source: str = ""


def in_store(packages: Sequence[Package], store: Path) -> Found:
    """Look the packages up in OSV's export for the ecosystem PyPI: its zip, or a folder of its JSON files.

    Errors: OSError; ValueError for what is no such export.
    """
    found, by_name, count = Found(), {one.name: one for one in packages}, 0
    for advisory in _advisories(store):
        count += 1
        for affected in advisory.get("affected", ()):
            named = affected.get("package", {})
            package = by_name.get(canonicalize_name(str(named.get("name", ""))))
            if package is None or named.get("ecosystem") != "PyPI" or "withdrawn" in advisory:
                continue
            if hit := affects(affected, package.version):
                ids = (str(advisory["id"]), *map(str, advisory.get("aliases", ())))
                found.known.append(Known(package, ids, hit))
    if not count:
        raise ValueError("it holds no advisory")
    found.source = f"{count} advisories in {store.name!r}"
    return found


def affects(affected: Mapping[str, Any], version: str) -> tuple[str, ...] | None:
    """The versions that mend it where the version is affected, perhaps none, else None (OSV schema, 1.6)."""
    mine = Version(version)
    events = [event for one in affected.get("ranges", ()) if one.get("type") == "ECOSYSTEM" for event in one["events"]]
    fixed = tuple(sorted({event["fixed"] for event in events if "fixed" in event}, key=_order))
    hit = version in affected.get("versions", ())
    for one in affected.get("ranges", ()):
        if one.get("type") == "ECOSYSTEM":
            hit = hit or _within(one["events"], mine)
    return tuple(one for one in fixed if _order(one) > mine) if hit else None


def _within(events: Sequence[Mapping[str, str]], mine: Version) -> bool:
    inside = False
    for event in sorted(events, key=lambda one: _order(next(iter(one.values())))):
        kind, text = next(iter(event.items()))
        if kind == "introduced" and _order(text) <= mine:
            inside = True
        elif (kind == "fixed" and _order(text) <= mine) or (kind == "last_affected" and _order(text) < mine):
            inside = False
    return inside


def _order(version: str) -> Version:
    try:
        return Version(version)
    except InvalidVersion:
        return Version("0")


def _advisories(store: Path) -> Iterator[Mapping[str, Any]]:
    if store.is_dir():
        for path in sorted(store.glob("*.json")):
            yield json.loads(path.read_bytes())
        return
    try:
        with zipfile.ZipFile(store) as archive:
            for name in archive.namelist():
                if name.endswith(".json"):
                    yield json.loads(archive.read(name))
    except zipfile.BadZipFile as error:
        raise ValueError("it is neither a folder nor a zip") from error


def asked(packages: Sequence[Package], listed: Path, url: str | None = None) -> Found:
    """Ask an OSV server by pip-audit; `listed`: a file that this writes for it. `url`: a server that is not OSV's."""
    listed.write_text("".join(f"{one.name}=={one.version}\n" for one in packages), encoding="utf-8")
    command = [sys.executable, "-m", "pip_audit", "-r", str(listed), "--no-deps", "--disable-pip", "-f", "json",
               "--progress-spinner", "off", "-s", "osv", *(["--osv-url", url] if url else [])]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return _nothing(packages, f"the server did not answer within {TIMEOUT} s")
    try:
        said: Any = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"pip-audit ended with {done.returncode}"])[-1]
        return _nothing(packages, last[:300])
    return read_answer(packages, said)


def read_answer(packages: Sequence[Package], said: Mapping[str, Any]) -> Found:
    """pip-audit's JSON. What it skipped or left out was not checked, whatever its exit code and its last line say."""
    found = Found(source="an OSV server, asked by pip-audit")
    told: dict[str, Any] = {canonicalize_name(one["name"]): one for one in said.get("dependencies", ())}
    for package in packages:
        one = told.get(package.name)
        if one is None or "vulns" not in one:
            found.unchecked[package.name] = "pip-audit left it out" if one is None else str(one.get("skip_reason"))
            continue
        for vuln in one["vulns"]:
            found.known.append(Known(package, (vuln["id"], *vuln.get("aliases", ())), tuple(vuln["fix_versions"])))
    return found


def _nothing(packages: Sequence[Package], why: str) -> Found:
    return Found(unchecked={one.name: why for one in packages})

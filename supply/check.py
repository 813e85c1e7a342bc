"""`make audit`: a bill of materials, the licences and the known vulnerabilities of what is installed.

    python -m supply.check --python .venv/bin/python --out build/supply [--stored all.zip | --osv-url URL]

Run it with a Python that has constraints-audit.txt. Writes sbom.cdx.json (CycloneDX), licences.txt and known.json into
the folder. Exit codes: 0 no known vulnerability but those that supply/accepted.toml gives a reason for; 1 others are
known; 2 bad input; 4 not checked, wholly or in part, which is not the same as clean.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from supply.advisories import Found, Known, Package, asked, in_store

ROOT = Path(__file__).resolve().parent.parent
KNOWN, BAD_INPUT, NOT_CHECKED = 1, 2, 4
OWN = "finllm"
SPEC = "1.6"
"""Of CycloneDX."""


@dataclass(frozen=True)
class Accepted:
    """A vulnerability without a mend that finllm does not reach: its names, why, and the test that holds it."""

    package: str
    version: str
    ids: tuple[str, ...]
    why: str
    held_by: str


def accepted(path: Path = ROOT / "supply" / "accepted.toml") -> list[Accepted]:
    rows = tomllib.loads(path.read_text(encoding="utf-8"))["accepted"]
    return [Accepted(**{**row, "ids": tuple(row["ids"])}) for row in rows]


def bill(python: Path, out: Path) -> dict[str, Any]:
    """CycloneDX's bill of materials of an environment, written to `out`. Errors: RuntimeError."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", str(python), "--pyproject",
               str(ROOT / "pyproject.toml"), "--output-format", "JSON", "--spec-version", SPEC, "--output-reproducible",
               "--output-file", str(out)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(f"no bill of materials: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return json.loads(out.read_text(encoding="utf-8"))


def licences(sbom: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, version and licence of each component; the licence is empty where its metadata states none."""
    rows: list[tuple[str, str, str]] = []
    for one in sbom["components"]:
        stated = [entry.get("expression") or entry["license"].get("id") or entry["license"].get("name", "")
                  for entry in one.get("licenses", ())]  # fmt: skip
        names = [name.removeprefix("License :: ").removeprefix("OSI Approved :: ") for name in stated]
        rows.append((one["name"], one["version"], "; ".join(dict.fromkeys(name for name in names if name))))
    return sorted(rows, key=lambda row: row[0].lower())


def sorted_out(found: Found, reasons: Sequence[Accepted]) -> tuple[list[Known], list[tuple[Known, Accepted]]]:
    """What is known without a reason, and with one. A reason is for a version that has no mend yet."""
    open_, with_reason = list[Known](), list[tuple[Known, Accepted]]()
    for one in found.known:
        reason = next((row for row in reasons if (row.package, row.version) == (one.package.name, one.package.version)
                       and set(row.ids) & set(one.ids) and not one.mended_in), None)  # fmt: skip
        if reason is None:
            open_.append(one)
        else:
            with_reason.append((one, reason))
    return open_, with_reason


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check what finllm is installed with.")
    parser.add_argument("--python", type=Path, default=ROOT / ".venv" / "bin" / "python")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "supply")
    parser.add_argument("--stored", type=Path, help="OSV's export for PyPI: its all.zip, or a folder of its files")
    parser.add_argument("--osv-url", help="another OSV server than OSV's own")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        sbom = bill(options.python, options.out / "sbom.cdx.json")
        rows = licences(sbom)
        packages = [Package.of(one["name"], one["version"]) for one in sbom["components"] if one["name"] != OWN]
        found = (in_store(packages, options.stored) if options.stored
                 else asked(packages, options.out / "installed.txt", options.osv_url))  # fmt: skip
    except (OSError, ValueError, RuntimeError) as error:
        fix = "'make audit' installs what this needs; --stored names OSV's all.zip"
        print(f"error: {error}\n  fix: {fix}", file=sys.stderr)
        return BAD_INPUT
    listed = "".join(f"{name}\t{version}\t{licence or 'not stated'}\n" for name, version, licence in rows)
    (options.out / "licences.txt").write_text(listed, encoding="utf-8")
    (options.out / "known.json").write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")
    unstated = [name for name, _, licence in rows if not licence]
    print(f"{len(rows)} packages in {options.out / 'sbom.cdx.json'} (CycloneDX {SPEC}); licences in licences.txt, not "
          f"stated by {', '.join(unstated) or 'none'}")  # fmt: skip
    return told(found, len(packages), accepted())


def told(found: Found, packages: int, reasons: Sequence[Accepted]) -> int:
    """Print what was found; the exit code."""
    open_, with_reason = sorted_out(found, reasons)
    for one in open_:
        mend = f"mended in {', '.join(one.mended_in)}" if one.mended_in else "no version mends it yet"
        print(f"KNOWN: {one.package.name} {one.package.version}: {', '.join(one.ids)}; {mend}")
    for one, reason in with_reason:
        print(f"accepted: {one.package.name} {one.package.version}: {one.ids[0]}: {reason.why} ({reason.held_by})")
    if found.unchecked:
        why = next(iter(found.unchecked.values()))
        print(f"NOT CHECKED: {len(found.unchecked)} of {packages} packages, such as {min(found.unchecked)}: {why}")
        print("  fix: run it where an OSV server is reached, or give OSV's export: --stored all.zip")
    if open_:
        return KNOWN
    if found.unchecked:
        return NOT_CHECKED
    print(f"clean: {packages} packages against {found.source}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`make audit` tells known vulnerabilities, clean and not checked apart, whatever its tools say at the end."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from supply.advisories import Found, Known, Package, affects, in_store, read_answer
from supply.check import ROOT, Accepted, accepted, told

TOOLS = ROOT / ".audit" / "bin" / "python"
needs_tools = pytest.mark.skipif(not TOOLS.exists(), reason="pip-audit and cyclonedx-bom are not here: make audit")
JINJA = Package("jinja2", "3.1.6")


def ranged(*events: tuple[str, str], versions: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "package": {"name": "Jinja2", "ecosystem": "PyPI"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{kind: version} for kind, version in events]}],
        "versions": list(versions),
    }


@pytest.mark.parametrize(
    ("affected", "version", "mended"),
    [
        (ranged(("introduced", "0"), ("fixed", "3.1.7")), "3.1.6", ("3.1.7",)),
        (ranged(("introduced", "0"), ("fixed", "3.1.6")), "3.1.6", None),
        (ranged(("introduced", "3.2")), "3.1.6", None),
        (ranged(("introduced", "0"), ("last_affected", "3.1.6")), "3.1.6", ()),
        (ranged(("introduced", "0"), ("last_affected", "3.1.5")), "3.1.6", None),
        (ranged(("introduced", "0"), ("fixed", "2.0"), ("introduced", "3.0"), ("fixed", "3.10")), "3.9", ("3.10",)),
        (ranged(("introduced", "0"), ("fixed", "2.0"), ("introduced", "3.0"), ("fixed", "3.10")), "2.5", None),
        (ranged(("introduced", "3.1.6rc1"), ("fixed", "3.1.6")), "3.1.6rc2", ("3.1.6",)),
        ({"versions": ["3.1.6"]}, "3.1.6", ()),
        ({"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}, "3.1.6", None),
    ],
)
def test_a_version_is_held_against_an_advisory_s_ranges(
    affected: dict[str, Any], version: str, mended: tuple[str, ...] | None
) -> None:
    assert affects(affected, version) == mended


@pytest.fixture(params=["folder", "zip"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An export of OSV in small: one advisory of what is asked for, one withdrawn, one of another ecosystem."""
    hit = {"id": "GHSA-aaaa", "aliases": ["CVE-1"], "affected": [ranged(("introduced", "0"), ("fixed", "3.2"))]}
    other = ranged(("introduced", "0"))
    other["package"]["ecosystem"] = "npm"
    rows = {"a": hit, "b": hit | {"id": "GHSA-b", "withdrawn": "2026-01-01T00:00:00Z"},
            "c": {"id": "GHSA-c", "affected": [other]}}  # fmt: skip
    (folder := tmp_path / "osv").mkdir()
    for name, row in rows.items():
        (folder / f"{name}.json").write_text(json.dumps(row))
    if request.param == "folder":
        return folder
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    return tmp_path / "all.zip"


def test_a_stored_export_is_looked_through_without_a_network(store: Path) -> None:
    found = in_store([JINJA, Package.of("Torch", "2.13.0+cpu")], store)
    assert found.known == [Known(JINJA, ("GHSA-aaaa", "CVE-1"), ("3.2",))]
    assert (found.unchecked, "3 advisories" in found.source) == ({}, True)


def test_what_is_no_export_is_refused_and_not_clean(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "page.zip").write_text("<html>")
    for path in (tmp_path / "empty", tmp_path / "page.zip"):
        with pytest.raises(ValueError, match=r"advisory|neither a folder nor a zip"):
            in_store([JINJA], path)


def test_what_pip_audit_skips_is_not_checked_though_it_says_that_nothing_was_found() -> None:
    """Where an index has no advisories, pip-audit skips every package, says that none is known and exits with 0."""
    said = {"dependencies": [{"name": "Jinja2", "skip_reason": "Dependency not found on PyPI"}]}
    found = read_answer([JINJA, Package("torch", "2.13.0")], said)
    assert sorted(found.unchecked) == ["jinja2", "torch"]
    assert told(found, 2, ()) == 4


def reason(**changes: Any) -> Accepted:
    return Accepted(**{"package": "jinja2", "version": "3.1.6", "ids": ("CVE-1",), "why": "not reached",
                       "held_by": "a test", **changes})  # fmt: skip


@pytest.mark.parametrize(
    ("found", "reasons", "code"),
    [
        (Found(source="a store"), [], 0),
        (Found([Known(JINJA, ("GHSA-a", "CVE-1"), ())]), [], 1),
        (Found([Known(JINJA, ("GHSA-a", "CVE-1"), ())]), [reason()], 0),
        (Found([Known(JINJA, ("GHSA-a", "CVE-1"), ("3.2",))]), [reason()], 1),
        (Found([Known(JINJA, ("GHSA-a", "CVE-1"), ())]), [reason(version="3.1.5")], 1),
        (Found([Known(JINJA, ("GHSA-a", "CVE-1"), ())]), [reason(package="torch")], 1),
        (Found([Known(JINJA, ("GHSA-b",), ())], {"torch": "why"}), [], 1),
        (Found([Known(JINJA, ("CVE-1",), ())], {"torch": "why"}), [reason()], 4),
    ],
    ids=["clean", "known", "with a reason", "a mend is there", "another version", "another package",
         "known and unchecked", "unchecked"],
)  # fmt: skip
def test_the_exit_code_tells_known_clean_and_not_checked_apart(
    found: Found, reasons: list[Accepted], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(found, 2, reasons) == code
    said = capsys.readouterr().out
    assert ("clean" in said, "KNOWN" in said, "NOT CHECKED" in said) == (code == 0, code == 1, bool(found.unchecked))


def test_every_reason_is_about_a_pinned_version_and_names_a_test_that_is_there() -> None:
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    for one in accepted():
        assert f"{one.package}=={one.version}" in pinned, "look at it again"
        file, _, test = one.held_by.partition("::")
        assert f"def {test}(" in (ROOT / file).read_text()


class Osv(BaseHTTPRequestHandler):
    """An OSV server in small: asked for a package and a version, it answers with the advisories."""

    answers: dict[str, list[dict[str, Any]]]
    asked: list[tuple[str, str]]

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = question["package"]["name"]
        self.asked.append((name, question["version"]))
        data = json.dumps({"vulns": self.answers[name]} if name in self.answers else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


@pytest.fixture
def osv() -> Iterator[tuple[str, type[Osv]]]:
    class Handler(Osv):
        answers, asked = {}, []

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query", Handler
    server.shutdown()
    thread.join(timeout=10)
    server.server_close()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds next to nothing."""
    folder = tmp_path_factory.mktemp("small") / "env"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    return folder / "bin" / "python"


def audited(small: Path, out: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [TOOLS, "-m", "supply.check", "--python", small, "--out", out, *arguments]
    return subprocess.run([str(one) for one in command], capture_output=True, text=True, timeout=300, check=False,
                          cwd=ROOT)  # fmt: skip


@needs_tools
@pytest.mark.slow
def test_a_real_check_asks_the_server_for_each_package(small: Path, osv: tuple[str, type[Osv]], tmp_path: Path) -> None:
    url, server = osv
    done = audited(small, tmp_path / "clean", "--osv-url", url)
    assert (done.returncode, "clean: " in done.stdout) == (0, True), done.stdout + done.stderr
    sbom = json.loads((tmp_path / "clean" / "sbom.cdx.json").read_text())
    listed = {(one["name"], one["version"]) for one in sbom["components"]}
    assert (sbom["bomFormat"], set(server.asked)) == ("CycloneDX", listed)
    assert "pip\t" in (tmp_path / "clean" / "licences.txt").read_text()
    server.answers["pip"] = [{"id": "GHSA-x", "aliases": ["CVE-2"], "affected": [
        {"package": {"name": "pip", "ecosystem": "PyPI"}, "ranges": [{"type": "ECOSYSTEM", "events": [
            {"introduced": "0"}, {"fixed": "999"}]}]}]}]  # fmt: skip
    done = audited(small, tmp_path / "known", "--osv-url", url)
    assert (done.returncode, "KNOWN: pip" in done.stdout, "mended in 999" in done.stdout) == (1, True, True), (
        done.stdout
    )


@needs_tools
@pytest.mark.slow
def test_a_server_that_is_not_reached_is_no_clean_bill(small: Path, tmp_path: Path) -> None:
    done = audited(small, tmp_path, "--osv-url", "http://127.0.0.1:1/v1/query")
    assert (done.returncode, "NOT CHECKED" in done.stdout, "clean" in done.stdout) == (4, True, False), done.stdout


@needs_tools
@pytest.mark.slow
def test_a_store_that_is_not_there_is_bad_input(small: Path, tmp_path: Path) -> None:
    done = audited(small, tmp_path, "--stored", tmp_path / "nowhere.zip")
    assert (done.returncode, "fix: " in done.stderr) == (2, True)


def test_litellm_is_pinned_past_what_is_known_of_it() -> None:
    """Version 1.84 mends the last of what was known when it was looked at."""
    pins = dict(line.split("==") for line in (ROOT / "constraints-bench.txt").read_text().splitlines()[1:])
    assert Version(pins["litellm"]) >= Version("1.84")
    assert "litellm" not in (ROOT / "constraints.txt").read_text()

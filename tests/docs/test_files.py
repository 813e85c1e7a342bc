"""docs/files.md: nothing is missing in it, and what is out of date names its mend."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from docs import file_list

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_page_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "docs" / "file_list.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_every_tracked_module_is_on_the_page() -> None:
    command = ["git", "ls-files", "*.py"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    page = (ROOT / file_list.PAGE).read_text(encoding="utf-8")
    lines = [line.split("`")[1] for line in page.splitlines() if line.startswith("- `")]
    assert len(lines) == len(set(lines)), "a module is listed twice"
    names = [Path(name) for name in tracked.stdout.splitlines() if (ROOT / name).exists()]
    assert len(names) > 300
    assert not [n for n in names if n.parts[0] != "tests" and str(n) not in lines]
    assert not [n for n in names if n.parts[0] == "tests" and f"{n.parent}/" not in lines]


def test_a_module_without_docstring_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "fine.py").write_text('"""Adds *two* numbers, a < b, `*c`."""\n', encoding="utf-8")
    assert "- `tools/fine.py`: Adds \\*two\\* numbers, a &lt; b, `*c`." in file_list.page(tmp_path)
    (folder / "silent.py").write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"'tools/silent\.py' has no docstring"):
        file_list.page(tmp_path)


def test_folders_that_are_links_are_not_listed_twice(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "a.py").write_text('"""One."""\n', encoding="utf-8")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "tools").symlink_to(tmp_path / "tools")
    assert file_list.page(tmp_path).count("a.py") == 1


def test_an_outdated_page_names_the_command_that_mends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.py").write_text('"""One."""\n', encoding="utf-8")
    monkeypatch.setattr(file_list, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="make format"):
        file_list.main("--check")
    file_list.main("--write")
    file_list.main("--check")

"""A risk manager's session in the browser: opened, three edits, an undo; numbers move, and a reload shows the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from finllm.memory.sessions import session_rows, sessions
from finllm.sessions.tree import Tree
from tests.memory.desks import home_at
from tests.models.tiny import write_tiny_model
from tests.warm import Warm
from tests.web.browsing import CHROMIUM, Watched, chromium
from tests.web.conftest import PEOPLE, Made, Served, serving_at

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium, or name one in CHROMIUM"),
]
LONGEST = 300_000
"""ms of an answer: the session's process imports what a run takes, on a machine that has much else to do."""

IN_HAND = """(id) => !document.querySelector('.busy')
  && [...document.querySelectorAll('[data-part=figures] h2')].some((one) =>
    one.textContent.startsWith(`${id}: `) && !one.textContent.includes('not finished'))"""


@pytest.fixture
def desk(warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The desk on a home of the tiny model, whose answers mean nothing and are the same each time."""
    home = warm.home(tmp_path / "home")
    tiny = home / "tiny.gguf"
    write_tiny_model(tiny)
    for name, value in (("HOME", str(home)), ("MODEL", str(tiny)), ("CONTEXT", "32768"), ("THREADS", "1")):
        monkeypatch.setenv(f"FINLLM_{name}", value)
    with home_at(home, people=PEOPLE):
        pass
    made = Made(home, "", (), "")
    with serving_at(made, model=str(tiny), context=32768, threads=1) as served:
        yield served


def version_in_hand(page: Page, id: str) -> str:
    """Wait, without a reload, until the page shows that version with its figures; these."""
    page.wait_for_function(IN_HAND, arg=id, timeout=LONGEST)
    return page.inner_text("[data-part=figures] section.summary")


def test_three_edits_and_an_undo(desk: Served) -> None:
    with chromium() as browser:
        one = Watched(browser, desk)
        page = one.sign_in("risk1")
        page.select_option("select[name=scenario]", "hormuz-blockade")
        page.click("button:has-text('Open the session')")
        page.wait_for_url("**/session/*", timeout=LONGEST)
        first = version_in_hand(page, "v1")
        page.evaluate("window.stayed = true")
        form = page.locator("form:has(input[value=shock])")
        form.locator("input[name=factor]").fill("OIL_WTI")
        form.locator("input[name=move]").fill("+60%")
        form.locator("input[name=because]").fill("two lanes are mined")
        form.locator("button").click()
        second = version_in_hand(page, "v2")
        assert second != first
        assert "two lanes are mined" in page.inner_text("[data-part=versions]")
        page.evaluate("window.stayed = true")
        page.keyboard.press("l")
        page.keyboard.type("horizon 10")
        page.keyboard.press("Enter")
        version_in_hand(page, "v3")
        page.locator("select[name=way]").select_option("off")
        page.locator("form:has(select[name=way]) input[name=because]").fill("unconfirmed")
        page.locator("form:has(select[name=way]) button").click()
        version_in_hand(page, "v4")
        page.keyboard.press("u")
        page.keyboard.press("Enter")
        back = version_in_hand(page, "v3")
        page.reload()
        assert version_in_hand(page, "v3") == back
        assert page.evaluate("window.violated") == []
        one.close()
    ledger = desk.serving.ledger
    tree = Tree.of(session_rows(sessions(ledger, 1)[0]["session"], ledger))
    assert [version.line for version in tree.versions.values()][1:] == [
        'shock OIL_WTI +60% because "two lanes are mined"', "horizon 10",
        f'source {tree.version.request.scenario.sources[0].id} off because "unconfirmed"']  # fmt: skip
    assert {version.who for version in tree.versions.values()} == {"risk1"}
    assert tree.version.id == "v3"
    assert re.match(r"s-\d{6}-\d{4}-", tree.opened.session)

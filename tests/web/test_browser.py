"""The desk in a real Chromium: hostile texts run nothing; a reviewer's day by script, without it, by keyboard."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from finllm.memory.knowledge import KnowledgeBase
from tests.desks import request_for
from tests.memory.desks import PHRASE
from tests.warm import Warm
from tests.web.browsing import CHROMIUM, Watched, chromium
from tests.web.conftest import Made, Served, copied, go_on, make_home, serving_at
from tests.web.hostile import HOSTILE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium, or name one in CHROMIUM"),
]
MARKUP = "main script, main iframe, main object, main embed, main style, main link, main base, main meta, " \
         "main svg:not(.line), main img:not([src^='/run/']), main video, main math, main template"  # fmt: skip
"""What no page has in it of itself."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def hostile(warm: Warm, shared_knowledge: KnowledgeBase, tmp_path_factory: pytest.TempPathFactory) -> Made:
    first = request_for("hormuz-blockade").scenario.sources[0]
    sources = tuple(first.model_copy(update={"id": f"bad-{number}", "text": text, "publisher": text[:60],
                                             "url": f"https://example.com/{number}"})
                    for number, text in enumerate(HOSTILE))  # fmt: skip
    narrative = "The strait is closed. <script>violated.push('narrative')</script><img src=x onerror=alert(1)>"
    title = "<svg onload=alert(1)> closed \u202e strait"
    return make_home(tmp_path_factory.mktemp("hostile") / "home", warm, shared_knowledge, ('review "look at this"',),
                     sources=sources, narrative=narrative, title=title)  # fmt: skip


def test_hostile_texts_are_text_on_every_page_that_shows_them(browser: Browser, hostile: Made, tmp_path: Path) -> None:
    with serving_at(copied(hostile, tmp_path / "home")) as served:
        served.serving.rates.allow = lambda *_: True  # type: ignore[method-assign]
        one = Watched(browser, served)
        page = one.sign_in("rev1")
        run = hostile.runs[-1]
        pages = ["/queue", "/runs", f"/run/{run}", f"/item/{hostile.item}", f"/item/{hostile.item}?open=E1", "/cost",
                 *(f"/run/{run}/source/bad-{number}" for number in range(len(HOSTILE))),
                 f"/compare?first={run}&second={run}", "/search?text=script"]  # fmt: skip
        report = served.serving.reports.get(run).report
        assert report is not None
        spans = [row.id for row in report.evidence if row.source and "characters" in row.source.pointer]
        pages += [f"/run/{run}?open={id}" for id in spans[:12]]
        for path in pages:
            one.said.clear()
            answer = page.goto(path)
            assert answer is not None
            assert answer.status == 200, path
            page.wait_for_load_state("load")
            assert page.evaluate("window.violated") == [], path
            assert page.locator(MARKUP).count() == 0, path
            assert not [line for line in one.said if "favicon" not in line], (path, one.said)
            assert page.url.startswith(served.url), path
        assert all(url.startswith((served.url, "data:")) for url in one.asked), one.asked
        shown = page.goto(f"/run/{run}/source/bad-0")
        assert shown is not None
        assert "<script>" in page.inner_text(".source")
        one.close()


class ByMouse:
    """What a reviewer does with a page, by clicking."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def open_item(self, id: str) -> None:
        self.page.goto("/queue")
        self.page.click(f"a:has-text('{id} ')")
        self.page.wait_for_url(f"**/item/{id}*")

    def claim(self) -> None:
        self.page.click("button:has-text('Claim it')")

    def open_number(self, href: str) -> None:
        self.page.locator(f"main a[href='{href}']").first.click()

    def send_back(self, about: str, reason: str) -> None:
        form = self.page.locator("#send-back")
        form.locator("select").select_option(about)
        form.locator("input[name=reason]").fill(reason)
        form.locator("button").click()

    def sign(self, reason: str) -> None:
        form = self.page.locator("#sign")
        form.locator("input[name=reason]").fill(reason)
        form.locator("input[name=phrase]").fill(PHRASE)
        form.locator("button").click()


class ByKeyboard(ByMouse):
    """The same with keys alone."""

    def open_item(self, id: str) -> None:
        self.page.goto("/queue")
        for _ in range(20):
            self.page.keyboard.press("j")
            if f"{id} " in self.page.evaluate("document.activeElement.textContent"):
                break
        self.page.keyboard.press("Enter")
        self.page.wait_for_url(f"**/item/{id}*")

    def claim(self) -> None:
        self.page.keyboard.press("c")
        self.page.keyboard.press("Enter")

    def open_number(self, href: str) -> None:
        for _ in range(1500):
            self.page.keyboard.press("Tab")
            if self.page.evaluate("document.activeElement.getAttribute('href')") == href:
                break
        self.page.keyboard.press("Enter")

    def send_back(self, about: str, reason: str) -> None:
        self.page.keyboard.press("b")
        self.page.keyboard.type(about)
        self.page.keyboard.press("Tab")
        self.page.keyboard.type(reason)
        self.page.keyboard.press("Enter")

    def sign(self, reason: str) -> None:
        self.page.keyboard.press("s")
        self.page.keyboard.type(reason)
        self.page.keyboard.press("Tab")
        self.page.keyboard.type(PHRASE)
        self.page.keyboard.press("Enter")


def told(page: Page, text: str) -> None:
    page.wait_for_selector(f"text={text}")


@pytest.mark.parametrize("way", ["script", "no script", "keyboard"])
def test_a_reviewers_day(browser: Browser, made: Made, warm: Warm, shared_knowledge: KnowledgeBase, tmp_path: Path,
                         way: str) -> None:  # fmt: skip
    """Claim, open six numbers down to a marked span, send back; the corrected version comes back with the difference
    marked; sign; a second person signs; approved; the exported bundle verifies where nothing of finllm is."""
    home = copied(made, tmp_path / "home")
    with serving_at(home) as served:
        first, second = (Watched(browser, served, script=way != "no script") for _ in range(2))
        page = first.sign_in("rev1")
        does = ByKeyboard(page) if way == "keyboard" else ByMouse(page)
        item, run = made.item, made.runs[-1]
        does.open_item(item)
        does.claim()
        told(page, "claimed by rev1")
        report = served.serving.reports.get(run).report
        assert report is not None
        span = next(row.id for row in report.evidence if row.source and row.source.pointer.startswith("characters"))
        numbers = [report.total.evidence, *(one.evidence for one in list(report.by_factor.values())[:4]), span]
        for id in numbers:
            does.open_number(f"/item/{item}?open={id}#opened")
            page.wait_for_selector(f"#opened[aria-label='Row {id}']")
        assert page.locator("#opened mark").count() >= 1
        assert "its bytes have the recorded digest" in page.inner_text("#opened")
        does.send_back("source", "the blog is one publisher and unconfirmed")
        told(page, "sent back")
        again = corrected(served, made, warm, shared_knowledge)
        does.open_item(again)
        assert "Against" in page.inner_text("main")
        assert page.locator("tr.here").count() > 0
        does.claim()
        told(page, "claimed by rev1")
        does.sign("read from end to end; the blog is out")
        told(page, "1 of 2 signatures")
        other = second.sign_in("rev2")
        by_other = ByKeyboard(other) if way == "keyboard" else ByMouse(other)
        by_other.open_item(again)
        by_other.sign("I agree")
        told(other, "approved")
        assert served.serving.reviews.record.get(again).ended == "approved"
        with other.expect_download() as taken:
            other.click("text=Take it out as bundles")
        verifies(Path(taken.value.path()), tmp_path / "bundle", again)
        if way != "no script":
            page.goto(f"/item/{again}")
            assert page.evaluate("window.violated") == []
        for one in (first, second):
            one.close()


def verifies(packed: Path, folder: Path, item: str) -> None:
    """Both bundles, where nothing of finllm is at hand; one with a byte changed does not."""
    with zipfile.ZipFile(packed) as files:
        files.extractall(folder)

    def code(name: str) -> int:
        script = folder / item / name / "verify.py"
        return subprocess.run([sys.executable, "-I", str(script)], cwd=script.parent, capture_output=True, check=False
                              ).returncode  # fmt: skip

    assert code("run") == 0
    assert code("review") == 0
    records = folder / item / "review" / "records.jsonl"
    records.write_bytes(records.read_bytes().replace(b"rev1", b"rev9", 1))
    assert code("review") != 0


def corrected(served: Served, made: Made, warm: Warm, knowledge: KnowledgeBase) -> str:
    """The corrected version, put to review by who made the first: the new item."""
    source = served.serving.reports.get(made.runs[-1]).request.scenario.sources[-1].id
    lines = (f'source {source} off because "unconfirmed"', 'review "corrected, without the blog"')
    return go_on(served.serving.settings.home, made.session, warm, knowledge, lines)

"""What every page looks like: contrast in light, dark and print; no scrolling aside; keys reach and show everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from starlette.routing import compile_path

from finllm.web.pages import all_doors
from tests.web.browsing import CHROMIUM, Watched, chromium
from tests.web.conftest import Made, Served, copied, serving_at

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium, or name one in CHROMIUM"),
]
LOOKS = (Path(__file__).parent / "looks.js").read_text(encoding="utf-8")
WIDTHS = (320, 375, 561, 768, 1024, 1100, 1280, 1920, 2560)
AT_RISK = ("/sessions", "/session/{session}", "/item/{item}")
"""Pages that risk1 sees otherwise, or alone."""
OTHER = {"/", "/sign-in/oidc", "/sign-in/oidc/back", "/item/{item}/again", "/queue.json", "/item/{item}.json",
         "/item/{item}/bundle.zip", "/run/{run}/chart/{name}", "/session/{session}/scenario.yaml", "/static/{name}",
         "/opening/{key}"}  # fmt: skip
"""What is no page, leads to one at once, or stands for a moment until a session is open."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def desk(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_at(copied(made, tmp_path_factory.mktemp("looks") / "home")) as served:
        served.serving.rates.allow = lambda *_: True  # type: ignore[method-assign]
        item = served.made.item
        client = served.signed_in("rev1")
        assert served.post(client, f"/item/{item}/claim").status_code == 303
        yield served


def pages_of(served: Served) -> dict[str, list[str]]:
    """Every page of the desk, by who looks at it."""
    made, run = served.made, served.made.runs[-1]
    shown = served.serving.reports.get(run)
    assert shown.report is not None
    span = next(row.id for row in shown.report.evidence if row.source and "characters" in row.source.pointer)
    series = next(row.id for row in shown.report.evidence if row.source and "characters" not in row.source.pointer)
    total = shown.report.total.evidence
    source = shown.request.scenario.sources[0].id
    return {
        "": ["/sign-in"],
        "aud1": ["/queue", f"/item/{made.item}", f"/item/{made.item}?open={total}", f"/run/{run}",
                 f"/run/{run}?open={span}", f"/run/{run}/evidence/{series}", f"/run/{run}/source/{source}",
                 f"/compare?first={made.runs[0]}&second={run}", "/audits", "/record", "/runs", "/books", "/scenarios",
                 "/cost", "/search?text=oil", "/account", "/nothing"],
        "rev1": [f"/item/{made.item}"],
        "risk1": [one.format(session=made.session, item=made.item) for one in AT_RISK],
    }  # fmt: skip


def test_no_page_is_left_out(desk: Served) -> None:
    looked_at = {path.partition("?")[0] for paths in pages_of(desk).values() for path in paths}
    doors = [door.path for door in all_doors() if door.method == "GET" and not door.held]
    assert set(doors) >= OTHER
    for path in set(doors) - OTHER:
        pattern, _, _ = compile_path(path)
        assert any(pattern.match(one) for one in looked_at), path


def each_page(browser: Browser, served: Served, **options: Any) -> Iterator[tuple[str, Page]]:
    """Each page in turn, everything on it opened."""
    for who, paths in pages_of(served).items():
        one = Watched(browser, served, **options)
        one.context.add_init_script(LOOKS)
        if who:
            one.sign_in(who)
        for path in paths:
            one.page.goto(path)
            one.page.evaluate("looks.openAll()")
            yield f"{path} as {who or 'nobody'}", one.page
        one.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(browser: Browser, desk: Served, scheme: Any) -> None:
    """WCAG 2.2 AA 1.4.3: 4.5 to 1, or 3 to 1 where it is large; 1.4.11 for what one types into."""
    faint: dict[str, list[Any]] = {}
    for name, page in each_page(browser, desk, color_scheme=scheme):
        counted = page.evaluate("looks.counted()")
        assert counted >= 5, name
        pages: list[tuple[str, Literal["screen", "print"]]] = [(name, "screen"), (f"{name}, printed", "print")]
        for where, medium in pages:
            page.emulate_media(media=medium, color_scheme=scheme)
            if found := page.evaluate("looks.faint()"):
                faint[where] = found[:5]
        page.emulate_media(media="screen", color_scheme=scheme)
        page.evaluate("document.getElementById('keys').showModal()")
        if found := page.evaluate("looks.faint()"):
            faint[f"{name}, keys"] = found[:5]
    assert not faint, faint


def test_the_measure_finds_what_is_faint(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content("<body style='background:#fff'><p style='color:#777'>a</p><p style='color:#767676'>b</p>"
                     "<p style='color:#949494;font-size:24px'>c</p><p style='color:rgba(0,0,0,.5)'>d</p>"
                     "<p style='background:#000;color:#555'>e</p><p style='display:none;color:#fff'>f</p>")  # fmt: skip
    page.evaluate(LOOKS)
    assert sorted(one["text"] for one in page.evaluate("looks.faint()")) == ["a", "d", "e"]
    page.close()


def test_no_page_scrolls_aside_from_320_to_2560_pixels(browser: Browser, desk: Served) -> None:
    wide: list[str] = []
    for name, page in each_page(browser, desk):
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            if over > 0:
                wide.append(f"{name} at {width}: {over} px, {page.evaluate('looks.widest()')}")
    assert not wide, "\n".join(wide)


def test_what_is_printed_lacks_nothing_that_matters(browser: Browser, desk: Served) -> None:
    """All that a page says is on paper too, but for what can only be clicked: also what is folded or scrolls on a
    screen."""
    lost: dict[str, list[str]] = {}
    for name, page in each_page(browser, desk):
        page.emulate_media(media="screen")
        on_screen = page.evaluate("looks.said()")
        page.evaluate("looks.closeAll()")
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 720, "height": 1000})
        on_paper = set(page.evaluate("looks.said()"))
        if missing := [one for one in on_screen if one not in on_paper]:
            lost[name] = missing[:5]
        if cut := page.evaluate("looks.cut()"):
            lost[f"{name}, cut off"] = cut[:5]
    assert not lost, lost


def test_every_control_is_reached_and_shows_that_it_is(browser: Browser, desk: Served) -> None:
    """WCAG 2.2 AA 2.1.1, 2.4.3, 2.4.7: by Tab alone, in the order of the page, with an outline of 3 to 1."""
    wrong: dict[str, Any] = {}
    for name, page in each_page(browser, desk):
        page.keyboard.press("Tab")
        if found := page.evaluate("looks.unfocused()"):
            wrong[name] = found[:5]
        controls = page.evaluate("looks.controls()")
        if controls > 120:  # of a long page it is enough that each can be focused
            continue
        page.evaluate("document.activeElement.blur(); window.reached = new Set()")
        for _ in range(controls + 3):
            page.keyboard.press("Tab")
            page.evaluate("reached.add(document.activeElement)")
        if left := page.evaluate("looks.unreached(reached)"):
            wrong[f"{name}, by Tab"] = left[:5]
    assert not wrong, wrong


def test_a_question_mark_lists_the_keys_and_each_of_them_does_something(browser: Browser, desk: Served) -> None:
    item = f"/item/{desk.made.item}"
    one = Watched(browser, desk)
    page = one.sign_in("rev1")
    for path in ("/queue", item, "/search"):
        page.goto(path)
        page.keyboard.press("?")
        assert page.locator("dialog#keys").is_visible()
        page.keyboard.press("Escape")
        assert not page.locator("dialog#keys").is_visible()
    for path, key, tag in (
        (item, "s", "INPUT"),
        (item, "b", "SELECT"),
        (item, "e", "INPUT"),
        ("/search", "/", "INPUT"),
    ):
        page.goto(path)
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.tagName") == tag, (path, key)
    for key, path in (("q", "/queue"), ("r", "/runs"), ("c", "/record")):
        page.keyboard.press("Escape")
        page.keyboard.press("g")
        page.keyboard.press(key)
        page.wait_for_url(f"**{path}")
    one.close()

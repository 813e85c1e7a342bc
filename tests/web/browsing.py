"""Debian's Chromium, found by its path or by CHROMIUM, and a page of somebody who is signed in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.memory.desks import PHRASE
from tests.web.conftest import Served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""
LISTEN = """window.violated = [];
document.addEventListener('securitypolicyviolation', (event) =>
  window.violated.push(`${event.violatedDirective} ${event.blockedURI}`));"""
LONGEST = 240_000
"""ms of one step, on a machine that has much else to do."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser of its own; nothing outside this machine is asked for."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield found
        finally:
            found.close()


class Watched:
    """A page of somebody signed in; what the browser complained of is kept."""

    def __init__(self, browser: Browser, served: Served, *, script: bool = True, **options: Any) -> None:
        self.context = browser.new_context(base_url=served.url, java_script_enabled=script, **options)
        self.context.set_default_timeout(LONGEST)
        self.page: Page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self._dialog(dialog.message, dialog.dismiss))
        self.page.on("request", lambda request: self.asked.append(request.url))
        if script:
            self.page.add_init_script(LISTEN)

    def _dialog(self, message: str, dismiss: Callable[[], None]) -> None:
        self.said.append(f"dialog {message}")
        dismiss()

    def sign_in(self, name: str) -> Page:
        self.page.goto("/sign-in")
        self.page.fill("input[name=name]", name)
        self.page.fill("input[name=phrase]", PHRASE)
        self.page.click("button:has-text('Sign in')")
        self.page.wait_for_url("**/queue" if name not in ("risk1", "ana1") else "**/sessions")
        return self.page

    def close(self) -> None:
        self.context.close()

"""Take pictures of the desk in a browser: `python -m docs.screenshots`, on the real model and the system's Chromium.

A home is made with people, a session and its reviews, served as a person serves it, and looked at as they see it;
the pictures are `docs/img/desk-*.webp`. A home takes minutes to make: `FINLLM_RECORD_HOME` keeps it for another time.
"""

from __future__ import annotations

import base64
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.serve.desk import PHRASE, Books, books_at, server_at

from finllm.memory.review_record import ReviewRecord
from finllm.memory.reviews import Policy, Reviews
from finllm.sessions.session import Session
from finllm.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

IMAGES = Path(__file__).parent / "img"
PEOPLE: Any = {"boss": "admin", "risk1": "risk", "rev1": "reviewer", "rev2": "reviewer", "rev3": "reviewer",
               "aud1": "auditor"}  # fmt: skip
QUALITY = 62
"""Of WebP, of 100: text is sharp, and all pictures together stay under a megabyte."""
MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Picture:
    """A page as `who` sees it."""

    name: str
    who: str
    path: str
    scheme: Literal["light", "dark"] = "light"


@dataclass(frozen=True)
class Seeded:
    """What the home has: a session, the item that waits, and a row that is a span of a source."""

    session: str
    item: str
    span: str

    @property
    def pictures(self) -> tuple[Picture, ...]:
        item = f"/item/{self.item}"
        return (
            Picture("queue", "rev1", "/queue"), Picture("item", "rev1", item),
            Picture("item-dark", "rev1", item, "dark"), Picture("number", "rev1", f"{item}?open={self.span}"),
            Picture("session", "risk1", f"/session/{self.session}"), Picture("audits", "aud1", "/audits"),
        )  # fmt: skip


def seeded(home: Path) -> Seeded:
    """The home's people, session and reviews; made where it has none."""
    with books_at(home) as books:
        for name, role in PEOPLE.items():
            if books.users.find(name) is None:
                books.users.add(name, role, PHRASE, by="boss")
        if not ReviewRecord(books.ledger).items():
            _work(home, "hormuz-blockade", 'shock OIL_WTI +60% because "two lanes are mined, see the navy note"')
            _approve(books, "r-1", ("rev1", "rev2"))
            _approve(books, "r-2", ("rev3", "aud1"))
            _work(home, books.reviews.record.get("r-1").row.session, 'source hrz-blog-1 off because "one publisher"')
        item = max(ReviewRecord(books.ledger).items().values(), key=lambda one: one.row.number)
        row = books.ledger.run(item.row.run)
        assert row is not None
        assert row.result is not None
        span = next(one["id"] for one in row.result["evidence"]
                    if one.get("source") and "characters" in one["source"]["pointer"])  # fmt: skip
        return Seeded(item.row.session, item.id, span)


def _work(home: Path, start: str, line: str) -> None:
    with Session.open(start, who="risk1", settings=Settings(home=home)) as session:
        if session.report_of(session.version) is None:
            session.begin()
        for typed in (line, 'review "for Thursday\'s committee"'):
            answer = session.do(typed)
            assert answer.error is None, answer.error


def _approve(books: Books, item: str, people: tuple[str, ...]) -> None:
    """Sign until it needs no more; every approved version is then audited blind, so that there is an audit to see."""
    reviews = Reviews(books.ledger, books.users, Policy(audit_every=1))
    for name in people:
        user = books.users.find(name)
        assert user is not None
        if reviews.record.get(item).ended is None:
            reviews.sign(item, user, PHRASE, "read from end to end; the sources bear it out")


def taken(browser: Browser, url: str, pictures: tuple[Picture, ...]) -> Iterator[tuple[str, bytes]]:
    """Each picture as WebP."""
    for one in pictures:
        context = browser.new_context(base_url=url, color_scheme=one.scheme, viewport={"width": 1280, "height": 860})
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.goto("/sign-in")
        page.fill("input[name=name]", one.who)
        page.fill("input[name=phrase]", PHRASE)
        page.click("button:has-text('Sign in')")
        page.wait_for_selector("form[action='/sign-out']")
        page.goto(one.path)
        page.wait_for_load_state("load")
        shot = context.new_cdp_session(page).send("Page.captureScreenshot", {"format": "webp", "quality": QUALITY})
        yield one.name, base64.b64decode(shot["data"])
        context.close()


def main() -> None:
    from tests.web.browsing import chromium

    with tempfile.TemporaryDirectory() as folder:
        home = Path(os.environ.get("FINLLM_RECORD_HOME", folder))
        found = seeded(home)
        with server_at(home) as server, chromium() as browser:
            shots = dict(taken(browser, server.url, found.pictures))
    for name, data in shots.items():
        path = IMAGES / f"desk-{name}.webp"
        path.write_bytes(data)
        print(f"{path.name}: {len(data):,} bytes")
    assert sum(map(len, shots.values())) <= MOST_BYTES, "too large for the repository: lower QUALITY"


if __name__ == "__main__":
    sys.exit(main())

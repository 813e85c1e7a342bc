"""What the pages show: any number opens its row, sources whole, two runs beside each other; and blind means blind."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from finllm.graphs.report import Report
from finllm.memory.looking import Looking
from finllm.memory.review_rows import AuditRow
from finllm.web.looks import Looks
from tests.memory.desks import PHRASE
from tests.web.conftest import WAIT, Made, Served, copied, serving_at


def test_every_page_of_the_line_at_the_top_opens(served: Served) -> None:
    for name in ("boss", "risk1", "ana1", "rev1", "aud1"):
        client = served.signed_in(name)
        page = client.get("/", follow_redirects=True)
        links = re.findall(r'href="(/[a-z]+)"', page.text.partition("</nav>")[0])
        assert len(links) >= 8
        for link in links:
            assert client.get(link).status_code == 200, (name, link)


def test_any_number_of_a_run_opens_its_row_beside_it(served: Served) -> None:
    client, run = served.signed_in("rev1"), served.made.runs[-1]
    row = served.serving.ledger.run(run)
    assert row is not None
    report = Report.model_validate(row.result)
    page = client.get(f"/run/{run}").text
    linked = set(re.findall(rf'href="/run/{run}\?open=(E[0-9]+)#opened"', page))
    figures = {report.total.evidence, *(one.evidence for one in report.by_factor.values()),
               *(one.evidence for one in report.by_position.values())}  # fmt: skip
    assert figures <= linked
    for id in [*sorted(linked, key=lambda one: int(one[1:]))[:12], report.total.evidence]:
        opened = client.get(f"/run/{run}?open={id}").text
        assert f'aria-label="Row {id}"' in opened
        assert "<dt>what</dt>" in opened
    total = client.get(f"/run/{run}?open={report.total.evidence}").text
    assert ", equal</span>" in total
    alone = client.get(f"/run/{run}/evidence/{report.total.evidence}").text
    assert f'aria-label="Row {report.total.evidence}"' in alone
    assert client.get(f"/run/{run}/evidence/E99999").status_code == 404


def test_a_source_is_shown_whole(served: Served) -> None:
    client, run = served.signed_in("rev1"), served.made.runs[0]
    source = served.serving.reports.get(run).request.scenario.sources[0]
    page = client.get(f"/run/{run}/source/{source.id}").text
    shown = re.search(r'<div class="source"[^>]*>(.*?)</div>', page, re.DOTALL)
    assert shown is not None
    plain = re.sub(r"<[^>]+>", "", shown[1]).replace("&#39;", "'").replace("&#34;", '"').replace("&amp;", "&")
    assert plain.split() == source.text.split()
    assert client.get(f"/run/{run}/source/none").status_code == 404


def test_words_are_found_in_sources_and_lead_to_their_place(served: Served) -> None:
    reviewer = served.signed_in("rev1")
    page = reviewer.get("/search?text=minesweepers").text
    until = time.monotonic() + WAIT
    while "not searched yet: ask again" in page:  # a process apart reads them, however long that takes it here
        assert time.monotonic() < until
        page = reviewer.get("/search?text=minesweepers").text
    assert "<mark>Minesweepers</mark>" in page
    (address,) = set(re.findall(r'href="(/run/[^"]+/source/[^"]+)"', page))
    assert "Minesweepers" in reviewer.get(address).text
    assert "Nothing on record has these words." in reviewer.get("/search?text=nowhereatall").text
    assert "there is no word in" in reviewer.get("/search?text=%22%22").text


def test_two_versions_beside_each_other(served: Served) -> None:
    client, (first, second) = served.signed_in("rev1"), served.made.runs
    page = client.get(f"/compare?first={first}&second={second}").text
    assert "What that changed in the result" in page
    assert "OIL_WTI" in page


def test_an_item_shows_the_verdict_first_then_the_human_hand(served: Served) -> None:
    page = served.signed_in("rev1").get(f"/item/{served.made.item}").text
    assert "two lanes are mined" in page
    order = [page.index(text) for text in ("<div class=\"cards\">", "Human hand", "What is decided", "What would flip",
                                           "Compliance", "Who looked")]  # fmt: skip
    assert order == sorted(order)


def test_who_looked_is_on_record(served: Served) -> None:
    item = served.made.item
    for name in ("rev1", "rev2"):
        assert f"<li>{name}," in served.signed_in(name).get(f"/item/{item}").text, "a look is on its own page already"
    assert "rev1," in served.signed_in("rev2").get(f"/item/{item}").text
    until = time.monotonic() + WAIT
    while (looks := [look.by for look in served.serving.reviews.record.looks(int(item[2:]))]) != ["rev1", "rev2"]:
        assert time.monotonic() < until, looks
        time.sleep(0.02)


def test_a_look_that_was_not_on_record_when_the_server_was_killed_is_there_with_the_next_one(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, number = copied(made, tmp_path / "home"), int(made.item[2:])
    for where in (Looks, Looking):  # as where it is killed before it comes to that
        monkeypatch.setattr(where, "_settled" if where is Looks else "settle", lambda _self: True)
    with serving_at(home) as served:
        assert served.signed_in("rev1").get(f"/item/{made.item}").status_code == 200
        assert served.serving.reviews.record.looks(number) == []
    monkeypatch.undo()
    with serving_at(home) as served:
        assert [look.by for look in served.serving.reviews.record.looks(number)] == ["rev1"]


def test_what_runs_cost_is_read_apart_and_named_where_it_is_not_read_yet(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, costs = served.signed_in("rev1"), served.serving.costs
    monkeypatch.setattr("finllm.web.costs.LITTLE", 0.0)
    monkeypatch.setattr(costs, "begin", lambda **_: None)
    assert f"{len(served.made.runs)} more have ended" in client.get("/cost").text
    monkeypatch.undo()
    costs.begin()
    until = time.monotonic() + WAIT
    while not all(costs.knows(run) for run in served.made.runs):
        assert time.monotonic() < until
        time.sleep(0.05)
    shown = client.get("/cost").text
    assert f"Of the newest {len(served.made.runs)} runs together" in shown
    assert "more have ended" not in shown
    assert all(f'href="/run/{run}"' in shown for run in served.made.runs)


def test_a_review_from_claim_to_two_signatures(served: Served) -> None:
    item = served.made.item
    first, second = served.signed_in("rev1"), served.signed_in("rev2")
    report = served.serving.reviews.record.get(item).row.report_sha256
    assert served.post(first, f"/item/{item}/claim").status_code == 303
    assert served.post(second, f"/item/{item}/claim").status_code == 409
    wrong = served.post(first, f"/item/{item}/sign", phrase="not the phrase at all", reason="read it", report=report)
    assert wrong.status_code == 403
    mute = served.post(first, f"/item/{item}/sign", phrase=PHRASE, reason=" ", report=report)
    assert mute.status_code == 400
    other = served.post(first, f"/item/{item}/sign", phrase=PHRASE, reason="read it", report="0" * 64)
    assert other.status_code == 409
    for client in (first, second):
        assert served.post(client, f"/item/{item}/sign", phrase=PHRASE, reason="read it", report=report
                           ).status_code == 303  # fmt: skip
    assert served.serving.reviews.record.get(item).ended == "approved"
    assert "signs report" in first.get(f"/item/{item}").text


def of_the_audit(path: str, body: bytes, id: str) -> bytes:
    """The part of an answer that is about the audit: all of its own page, its entry of a list."""
    if path == "/queue.json":
        return json.dumps([one for one in json.loads(body)["items"] if one["id"] == id]).encode()
    if path != "/queue":
        return body
    return next(one for one in re.findall(rb"<li data-row>.*?</li>", body, re.DOTALL) if f">{id} ".encode() in one)


@pytest.mark.parametrize("verdict", ["sign", "send-back"])
def test_a_blind_audit_does_not_change_with_the_first_verdict(served: Served, verdict: str) -> None:
    """badgerdoc#539: page, JSON, live digest, headers and counts are the same bytes before and after."""
    reviews, item = served.serving.reviews, served.made.item
    row, why = reviews.record.get(item).row, "quite unmistakable words"
    audit = AuditRow(kind="drawn", of=row.number)
    blind = row.model_copy(update={"number": row.number + 1, "who": "finllm", "needs": 1, "audit": audit})
    assert reviews.record.put(blind)
    auditor = served.signed_in("rev3")

    def seen() -> list[tuple[bytes, dict[str, str]]]:
        found: list[tuple[bytes, dict[str, str]]] = []
        for path in (f"/item/{blind.id}", f"/item/{blind.id}.json", "/queue", "/queue.json"):
            answer = auditor.get(path)
            assert answer.status_code == 200
            headers = {name: value for name, value in answer.headers.items()
                       if name != "date" and (name != "content-length" or path.startswith("/item"))}  # fmt: skip
            found.append((of_the_audit(path, answer.content, blind.id), headers))
            assert why.encode() not in answer.content
        return found

    auditor.get(f"/item/{blind.id}")
    before = seen()
    state = re.search(r'data-state="([0-9a-f]+)"', before[0][0].decode())
    assert state is not None
    with auditor.stream("GET", f"/live/item/{blind.id}?state={state[1]}") as live:
        heard = live.iter_raw()
        assert next(heard) == b"retry: 2000\n\n"
        for name in ("rev1", "rev2")[: 2 if verdict == "sign" else 1]:
            form = {"phrase": PHRASE, "reason": why, "report": row.report_sha256, "about": "evidence"}
            assert served.post(served.signed_in(name), f"/item/{item}/{verdict}", **form).status_code == 303
        assert reviews.record.get(item).ended == ("approved" if verdict == "sign" else "sent back")
        assert before == seen()
        assert next(heard) == b": here\n\n"
    assert auditor.get(f"/item/{item}").status_code == 403
    assert why.encode() not in auditor.get("/audits").content + auditor.get(f"/search?text={why}").content[3000:]

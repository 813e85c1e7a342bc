"""Faults that other tools' doors had, each by the name of what went wrong there: none of them is ours."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
from packaging.version import Version

from finllm.cli.main import main
from finllm.memory.web_sessions import WebSessions
from finllm.web.pages import all_doors
from finllm.web.rates import VISITING, Rate
from finllm.web.shell import HEADERS, POLICY
from tests.memory.desks import PHRASE
from tests.web.conftest import WAIT, Made, Served, token_in

SECRET = re.compile(r"[A-Za-z0-9_-]{43}")


def test_no_default_admin_nobody_is_there_until_somebody_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLflow CVE-2026-2635."""
    monkeypatch.setenv("FINLLM_HOME", str(tmp_path / "new"))
    assert main(["serve", "--port", "0"]) == 2
    assert main(["serve", "--port", "8099"]) == 2
    assert "finllm users add" in capsys.readouterr().err


def test_object_of_another_scope_by_id(served: Served) -> None:
    """Langfuse CVE-2026-41487: the session of another, its verbs and its live page are not there."""
    other = served.signed_in("ana1")
    session = served.made.session
    for path in (f"/session/{session}", f"/session/{session}/scenario.yaml", f"/live/session/{session}"):
        assert other.get(path).status_code == 404, path
    assert served.post(other, f"/session/{session}/do", verb="undo").status_code == 404
    assert served.post(other, f"/session/{session}/stop").status_code == 404
    assert session not in other.get("/sessions").text
    none = other.get("/session/s-nothing").text
    assert other.get(f"/session/{session}").text == none


def test_every_way_in_keeps_the_same_policy(served: Served) -> None:
    """Langfuse SSO (v3.174.0): there is one way to sign in by pass phrase, and none to reset or to send a token."""
    posts = [door.path for door in all_doors() if door.method == "POST" and "public" in door.roles]
    assert posts == ["/sign-in"]
    client = served.visitor()
    for given in ({"authorization": f"Bearer {PHRASE}"}, {"x-api-key": "k"}, {"x-forwarded-user": "boss"},
                  {"x-remote-user": "boss"}, {"remote-user": "boss"}):  # fmt: skip
        assert client.get("/queue", headers=given).headers.get("location") == "/sign-in"


def test_attribution_from_the_body(served: Served) -> None:
    """MLflow #24006: who signs, claims or sends back is whoever is signed in, whatever the form says."""
    client = served.signed_in("rev1")
    item = served.made.item
    forged = {"who": "rev2", "by": "rev2", "name": "rev2", "user": "rev2", "completed_by": "rev2", "role": "admin"}
    assert served.post(client, f"/item/{item}/claim", **forged).status_code == 303
    assert served.post(client, f"/item/{item}/send-back", about="evidence", reason="stale", **forged).status_code == 303
    events = served.serving.reviews.record.get(item).events
    assert [(event.by, event.role, event.login) for event in events] == [("rev1", "reviewer", "rev1")] * 2


def test_sessions_are_opaque_and_end_at_sign_out(served: Served) -> None:
    """Superset CVE-2023-27524 and its advisory on stateless sessions."""
    client = served.signed_in("rev1")
    cookie = client.cookies["finllm-session"]
    assert SECRET.fullmatch(cookie)
    stolen = httpx.Client(base_url=served.url, cookies={"finllm-session": cookie})
    assert stolen.get("/queue").status_code == 200
    assert served.post(client, "/sign-out").status_code == 303
    assert stolen.get("/queue").headers["location"] == "/sign-in"
    stolen.close()
    kept = b"".join(path.read_bytes() for path in served.made.home.glob("users.sqlite*"))
    assert cookie.encode() not in kept


@pytest.mark.parametrize("change", ["phrase", "role", "disabled"])
def test_sessions_end_on_all_devices_when_the_user_changes(served: Served, change: str) -> None:
    first, second = served.signed_in("rev1"), served.signed_in("rev1")
    users = served.serving.users
    match change:
        case "phrase":
            new = "eleven loud cranes by dawn"
            form = {"old": PHRASE, "phrase": new, "again": new}
            assert served.post(first, "/account/phrase", **form).status_code == 303
        case "role":
            users.role("rev1", "auditor", by="boss")
        case _:
            users.disable("rev1", by="boss")
    for client in (first, second):
        assert client.get("/queue").headers["location"] == "/sign-in"


def test_signing_in_makes_a_new_session(served: Served) -> None:
    """Session fixation: the cookie that a visitor came with is not the one they are signed in by."""
    client = served.visitor()
    client.cookies.set("finllm-session", "a" * 43)
    form = {"token": token_in(client.get("/sign-in").text), "name": "rev1", "phrase": PHRASE}
    assert client.post("/sign-in", data=form).status_code == 303
    given = [one.value for one in client.cookies.jar if one.name == "finllm-session"]
    assert given[-1]
    assert given[-1] != "a" * 43


def test_no_remember_me_cookie(served: Served) -> None:
    """Grafana CVE-2018-15727: no cookie outlives the browser, holds a name, or is read by a script."""
    answer = served.visitor().get("/sign-in")
    given = [*answer.headers.get_list("set-cookie")]
    client = served.visitor()
    form = {"token": token_in(client.get("/sign-in").text), "name": "rev1", "phrase": PHRASE}
    given += client.post("/sign-in", data=form).headers.get_list("set-cookie")
    assert len(given) == 3
    for cookie in given:
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "rev1" not in cookie
        assert "Max-Age=0" in cookie or "max-age" not in cookie.lower()


def test_no_secret_in_an_address_and_no_referrer(served: Served) -> None:
    """Grafana CVE-2023-1387."""
    client = served.signed_in("risk1")
    for path in ("/queue", "/runs", f"/session/{served.made.session}", f"/item/{served.made.item}"):
        answer = client.get(path)
        assert answer.headers["referrer-policy"] == "no-referrer"
        for address in re.findall(r'(?:href|action|src)="([^"]*)"', answer.text):
            assert client.cookies["finllm-session"] not in address
            assert not re.search(r"[0-9a-f]{64}", address)
    assert served.post(client, f"/item/{served.made.item}/withdraw?token=x", reason="r").status_code in (303, 403)


def test_host_header_is_looked_at_first(served: Served) -> None:
    """Starlette CVE-2026-48710, and DNS rebinding (canonry#1177): a host that is not ours gets no page."""
    client = served.signed_in("rev1")
    for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:80", "localhost@evil.example", "", "[::1"):
        assert client.get("/queue", headers={"host": host}).status_code == 400, host
        assert client.get("/sign-in", headers={"host": host}).status_code == 400, host
    assert Version(version("starlette")) >= Version("1.10")
    assert Version(version("authlib")) >= Version("1.7.2"), "the last of its four (CVE-2026-44681), with those before"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1", "", None])
def test_a_form_of_another_site_is_refused_on_loopback_too(served: Served, origin: str | None) -> None:
    """cezar#426: Origin and token on every unsafe method."""
    client = served.signed_in("rev1")
    token = token_in(client.get("/account").text)
    del client.headers["origin"]
    headers = {} if origin is None else {"origin": origin}
    path = f"/item/{served.made.item}/claim"
    assert client.post(path, data={"token": token}, headers=headers).status_code == 403
    assert served.serving.reviews.record.get(served.made.item).events == ()
    cross = {"origin": "null", "sec-fetch-site": "cross-site"}
    assert client.post(path, data={"token": token}, headers=cross).status_code == 403
    assert client.post(path, data={"token": token}, headers={"origin": served.url}).status_code == 303


def test_the_token_of_another_session_is_refused(served: Served) -> None:
    one, other = served.signed_in("rev1"), served.signed_in("rev2")
    token = token_in(other.get("/account").text)
    assert one.post(f"/item/{served.made.item}/claim", data={"token": token}).status_code == 403


def test_signing_somebody_else_in_needs_a_token_too(served: Served) -> None:
    """Login CSRF."""
    client = served.visitor()
    assert client.post("/sign-in", data={"name": "rev1", "phrase": PHRASE}).status_code == 403


def test_forms_and_ranges_that_cost_much(served: Served) -> None:
    """Starlette CVE-2025-62727 and GHSA-82w8-qh3p-5jfq, python-multipart: no uploads, bounded forms, no ranges."""
    client = served.signed_in("rev1")
    path = f"/item/{served.made.item}/claim"
    assert client.post(path, files={"token": b"x"}).status_code == 415
    assert client.post(path, json={"token": "x"}).status_code == 415
    assert client.post(path, data={"token": "x" * 70_000}).status_code == 413
    many = "&".join(f"f{number}=1" for number in range(5000))
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post(path, content=many, headers=form).status_code == 400
    assert client.get("/static/finllm.css", headers={"range": f"bytes={','.join(f'{n}-' for n in range(900))}"}
                      ).status_code == 200  # fmt: skip
    assert client.get("/queue?" + "a" * 5000).status_code == 414
    assert client.get("/" + "a" * 600).status_code == 414
    assert client.get("/queue", headers={"x-long": "a" * 12_400}).status_code == 431
    assert client.get("/queue", headers={"x-long": "a" * 40_000}).status_code in (400, 431)


def test_a_chunked_form_is_bounded_too(served: Served) -> None:
    client = served.signed_in("rev1")
    parts = (b"a" * 1000 for _ in range(200))
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post(f"/item/{served.made.item}/claim", content=parts, headers=headers).status_code == 413


def test_admin_does_not_approve_what_an_admin_made(served: Served) -> None:
    """git-proxy#1350, CUDly#1500: refused by the record, also where the page has no form for it."""
    served.serving.users.role("risk1", "admin", by="boss")
    client = served.signed_in("risk1")
    item = served.made.item
    report = served.serving.reviews.record.get(item).row.report_sha256
    answer = served.post(client, f"/item/{item}/sign", phrase=PHRASE, reason="fine", report=report)
    assert answer.status_code == 403
    assert "made, edited or overrode" in answer.text
    assert served.serving.reviews.record.get(item).signatures == ()
    assert 'id="sign"' not in client.get(f"/item/{item}").text


def test_security_headers_are_on_every_answer(served: Served) -> None:
    """Source text as markup: even what is escaped could run nothing."""
    client = served.signed_in("rev1")
    answers = [client.get(path) for path in ("/queue", "/nothing", "/static/finllm.js", f"/run/{served.made.runs[0]}",
                                             f"/run/{served.made.runs[0]}/chart/waterfall")]  # fmt: skip
    answers += [client.get("/queue", headers={"host": "evil"}), served.visitor().post("/sign-in")]
    for answer in answers:
        for name, value in HEADERS.items():
            assert answer.headers[name] == value, (answer.url, name)
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert "server" not in answer.headers
    assert POLICY.startswith("default-src 'none'")


def test_pages_have_no_inline_script_style_or_handler(served: Served) -> None:
    client = served.signed_in("risk1")
    for path in ("/queue", "/sessions", f"/session/{served.made.session}", f"/item/{served.made.item}?open=E1",
                 f"/run/{served.made.runs[0]}", "/scenarios", "/books", "/cost", "/record"):  # fmt: skip
        page = client.get(path).text
        assert not re.search(r"<script(?![^>]* src=\"/static/)", page), path
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", page), path
        assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", page), path


def test_pass_phrases_are_in_no_log_and_no_error(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    client = served.visitor()
    wrong = "a very secret wrong phrase"
    form = {"token": token_in(client.get("/sign-in").text), "name": "rev1", "phrase": wrong}
    answer = client.post("/sign-in", data=form)
    assert answer.status_code == 403
    assert wrong not in answer.text
    assert "no such user, or another pass phrase" in answer.text
    unknown = client.post("/sign-in", data={**form, "token": token_in(answer.text), "name": "nobody"})
    assert "no such user, or another pass phrase" in unknown.text
    said = capfd.readouterr()
    assert wrong not in said.out + said.err


def test_an_account_locks_itself(served: Served) -> None:
    client = served.visitor()
    answers = []
    for _ in range(7):
        form = {"token": token_in(client.get("/sign-in").text), "name": "rev2", "phrase": "wrong wrong wrong"}
        answers.append(client.post("/sign-in", data=form))
    assert "locked out" in answers[-1].text
    right = {"token": token_in(answers[-1].text), "name": "rev2", "phrase": PHRASE}
    assert client.post("/sign-in", data=right).status_code == 403


def test_more_requests_than_a_person_makes_are_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a rate that fills up nothing while the test runs: on a machine that is busy, requests take their time."""
    monkeypatch.setattr("finllm.web.guard.VISITING", Rate(1e-6, VISITING.burst))
    client, most = served.visitor(), int(VISITING.burst)
    assert [client.get("/sign-in").status_code for _ in range(most + 5)] == [200] * most + [429] * 5


def test_idle_and_absolute_end_of_a_session(served: Served) -> None:
    now = [time.time()]
    users, secret = served.serving.users, served.serving.web_sessions._secret
    sessions = WebSessions(users, secret, idle=100, absolute=1000, clock=lambda: now[0])
    user = users.find("rev1")
    assert user is not None
    token = sessions.begin(user)
    now[0] += 99
    assert sessions.find(token) == user
    now[0] += 99
    assert sessions.find(token, touch=False) == user
    now[0] += 99
    assert sessions.find(token) is None
    token = sessions.begin(user)
    for _ in range(20):
        now[0] += 60
        sessions.find(token)
    assert sessions.find(token) is None


def test_slow_clients_are_dropped(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slowloris: a head that trickles in, on a new connection and on one that is kept."""
    monkeypatch.setattr("finllm.web.server.SLOWEST_HEADERS", 2.0)
    port = int(served.url.rpartition(":")[2])
    for first in (b"", b"GET /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as slow:
            if first:
                slow.sendall(first)
                assert slow.recv(65536).startswith(b"HTTP/1.1 200")
            slow.sendall(b"GET /queue HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
            assert _dropped(slow)


def _dropped(slow: socket.socket) -> bool:
    """Whether the server hangs up on a head that never ends, within the time that a busy machine may take."""
    until = time.monotonic() + WAIT
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while time.monotonic() < until:
            slow.sendall(b"a")
            time.sleep(0.05)
        return False
    return True


def test_a_form_that_trickles_in_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    client = served.signed_in("rev1")
    monkeypatch.setattr("finllm.web.guard.SLOWEST_FORM", 0.5)
    port = int(served.url.rpartition(":")[2])
    head = (f"POST /item/{served.made.item}/claim HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: {served.url}\r\n"
            f"Cookie: finllm-session={client.cookies['finllm-session']}\r\nContent-Length: 100\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n\r\ntoken=")  # fmt: skip
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as slow:
        slow.sendall(head.encode())
        assert slow.recv(4096).startswith(b"HTTP/1.1 408")


def test_files_of_the_machine_are_not_for_a_browser(served: Served, made: Made) -> None:
    """Neither a line of a session nor the start of one reads or writes a path."""
    client = served.signed_in("risk1")
    path = f"/session/{made.session}/do"
    for line in ("save /tmp/x.yaml", "minutes /tmp/x.md", "limits /etc/passwd", "source add /etc/passwd"):
        answer = served.post(client, path, verb="line", text=line)
        assert answer.status_code == 400, line
    starts = ({"scenario": "/etc/passwd"}, {"story": "/etc/passwd is a file"}, {"book": "../../etc/passwd", "scenario":
              "hormuz-blockade"}, {"scenario": "hormuz-blockade", "book": "/etc/passwd"})  # fmt: skip
    for start in starts:
        assert served.post(client, "/sessions", **start).status_code == 400, start
    assert client.get("/books?book=../../etc/passwd").status_code == 404
    assert client.get("/static/..%2f..%2fapp.py").status_code == 404
    assert os.path.exists("/etc/passwd")

"""Every route of the desk: what is declared is what is open, to whom and by which method; nothing else is reachable."""

from __future__ import annotations

import pytest
from starlette.routing import Route

from finllm.web.app import create_app
from finllm.web.doors import PUBLIC, ROLES, SIGNED_IN, Door
from finllm.web.guard import Guarded
from finllm.web.pages import all_doors
from tests.web.conftest import ROLE_OF, Served, token_in

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def filled(path: str, served: Served) -> str:
    """A path with things in it that there are."""
    made = served.made
    source = served.serving.reports.get(made.runs[-1]).request.scenario.sources[0].id
    return path.format(item=made.item, run=made.runs[-1], session=made.session, source=source, row="E1",
                       name="finllm.css", key="n-0")  # fmt: skip


def test_every_route_is_a_declared_door(served: Served) -> None:
    app = create_app(served.serving)
    assert len(app.routes) == len(all_doors()) > 30
    for route, door in zip(app.routes, all_doors(), strict=True):
        assert isinstance(route, Route)
        assert isinstance(route.endpoint, Guarded)
        assert route.endpoint.door is door
        assert door.roles, f"{door.path} is open to nobody, or to everybody by mistake"
        assert door.roles is PUBLIC or door.roles <= SIGNED_IN
        assert route.methods == ({"GET", "HEAD"} if door.method == "GET" else {"POST"})


def test_only_signing_in_and_the_style_are_public() -> None:
    assert {(door.method, door.path) for door in all_doors() if door.roles is PUBLIC} == {
        ("GET", "/sign-in"), ("POST", "/sign-in"), ("GET", "/sign-in/oidc"),
        ("GET", "/sign-in/oidc/back"), ("GET", "/static/{name}")}  # fmt: skip


def test_nothing_but_a_door_may_be_declared() -> None:
    with pytest.raises(TypeError):
        Door("GET", "/x")  # type: ignore[call-arg]  # a door without roles


@pytest.mark.slow
def test_routes_by_methods_by_roles(served: Served) -> None:
    """Each route with each method as nobody and in each role: passes exactly where it was declared."""
    served.serving.rates.allow = lambda *_: True  # type: ignore[method-assign]
    visitors = {role: served.signed_in(name) for role, name in ROLE_OF.items()} | {"nobody": served.visitor()}
    declared = {(door.path, door.method): door for door in all_doors()}
    wrong: list[str] = []
    for path in dict.fromkeys(door.path for door in all_doors()):
        for method in METHODS:
            door = declared.get((path, "GET" if method == "HEAD" else method))
            for role in (*ROLES, "nobody"):
                if door is not None and door.held and role in door.roles:
                    continue  # stays open: tests of live pages look at it
                if (path, method) in (("/sign-out", "POST"), ("/account/everywhere", "POST")) and role != "nobody":
                    continue  # ends the session that the other routes are tried with
                answer = visitors[role].request(method, filled(path, served), content=b"")
                refused = _refused(door, role)
                if (answer.status_code in refused) != bool(refused) or (not refused and answer.status_code == 405):
                    wrong.append(f"{method} {path} as {role}: {answer.status_code}")
                if not refused and door is not None and door.method == "POST":
                    # it got through to the form, which has no token
                    assert answer.status_code in (403, 415), (path, role, answer.status_code)
    assert not wrong, wrong


def _refused(door: Door | None, role: str) -> tuple[int, ...]:
    """The answers that say no; empty where the role passes."""
    if door is None:
        return (404, 405)
    if door.roles is PUBLIC or role in door.roles:
        return ()
    if role == "nobody":
        return (303, 401) if door.method == "GET" else (401,)
    return (403,)


def test_a_post_in_each_role_that_may_is_refused_for_its_token_alone(served: Served) -> None:
    visitors = {role: served.signed_in(name) for role, name in ROLE_OF.items()}
    for door in all_doors():
        if door.method == "POST" and door.roles is not PUBLIC:
            answer = visitors[min(door.roles)].post(filled(door.path, served), data={"token": "0" * 64})
            assert answer.status_code == 403
            assert "too old" in answer.text


def test_the_same_answer_for_a_page_that_there_is_not(served: Served) -> None:
    client = served.signed_in("rev1")
    assert client.get("/nothing").status_code == client.get("/run/none").status_code == 404
    assert token_in(client.get("/account").text)

"""Signing in by OpenID Connect: whom the provider vouches for and an admin has bound; every lie is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from finllm.errors import AccessRefused
from tests.memory.desks import PHRASE
from tests.web.conftest import Made, Served, copied, serving_at, token_in
from tests.web.identity_provider import CLIENT, SECRET, Provider, provider_at


@pytest.fixture
def provider() -> Iterator[Provider]:
    with provider_at() as one:
        yield one


def settings_of(provider: Provider, **more: Any) -> dict[str, Any]:
    return {"oidc_issuer": provider.issuer, "oidc_client_id": CLIENT, "oidc_client_secret": SECRET, **more}


@pytest.fixture
def desk(made: Made, provider: Provider, tmp_path: Path) -> Iterator[Served]:
    with serving_at(copied(made, tmp_path / "home"), **settings_of(provider)) as served:
        served.serving.rates.allow = lambda *_: True  # type: ignore[method-assign]
        served.serving.users.bind("rev1", provider.issuer, "sub-rev1", by="boss")
        yield served


def begun(client: httpx.Client, path: str = "/sign-in/oidc") -> str:
    """The address at the provider to which the desk sends the browser."""
    answer = client.get(path)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def been_there(address: str) -> str:
    """The address to which the provider sends the browser back."""
    answer = httpx.get(address)
    assert answer.status_code == 302, answer.text
    return answer.headers["location"]


def signed_in(served: Served, path: str = "/sign-in/oidc") -> tuple[httpx.Client, httpx.Response]:
    client = served.visitor()
    return client, client.get(been_there(begun(client, path)))


def test_whom_the_provider_vouches_for_and_an_admin_has_bound_is_in(desk: Served, provider: Provider) -> None:
    client, answer = signed_in(desk)
    assert answer.status_code == 200, answer.text
    assert "You are rev1" in answer.text
    assert 'content="0;url=/"' in answer.text
    account = client.get("/account").text
    assert "rev1, reviewer" in account
    assert f"sub-rev1 of {provider.issuer}" in account
    asked = provider.asked[0]
    assert asked["code_challenge_method"] == "S256"
    assert asked["scope"] == "openid"
    assert asked["redirect_uri"] == f"{desk.url}/sign-in/oidc/back"
    assert len(asked["nonce"]) == len(asked["state"]) == 43
    assert desk.signed_in("rev2").get("/queue").status_code == 200, "pass phrases work beside it"


def test_the_sign_in_ends_when_an_admin_binds_otherwise(desk: Served, provider: Provider) -> None:
    client, _ = signed_in(desk)
    desk.serving.users.bind("rev1", "", "", by="boss")
    assert client.get("/queue").headers["location"] == "/sign-in"
    _, answer = signed_in(desk)
    assert answer.status_code == 403


LIES: dict[str, dict[str, Any]] = {
    "wrong nonce": {"nonce": "another"}, "no nonce": {"nonce": None}, "wrong issuer": {"iss": "https://evil.example"},
    "no issuer": {"iss": None}, "wrong audience": {"aud": "another-desk"}, "no audience": {"aud": None},
    "several audiences and no azp": {"aud": [CLIENT, "another"]}, "azp of another": {"azp": "another"},
    "expired": {"exp": int(time.time()) - 3600}, "no expiry": {"exp": None},
    "made in the future": {"iat": int(time.time()) + 3600}, "not yet good": {"nbf": int(time.time()) + 3600},
    "no subject": {"sub": None}, "empty subject": {"sub": ""}, "a number as subject": {"sub": 7},
    "another access token's hash": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_token_that_says_something_else_is_not_believed(desk: Served, provider: Provider, lie: str) -> None:
    provider.lies = LIES[lie]
    client, answer = signed_in(desk)
    assert answer.status_code == 403, answer.text
    assert "is not believed" in answer.text
    assert client.get("/queue").headers["location"] == "/sign-in"


@pytest.mark.parametrize("forged", ["unsigned", "with_public_key_as_secret", "with_own_key", "with_another_key"])
def test_alg_confusion_and_forged_signatures(desk: Served, provider: Provider, forged: str) -> None:
    """Authlib CVE-2024-37568 and CVE-2026-27962; ragflow#15180."""
    provider.sign = getattr(provider, forged)
    client, answer = signed_in(desk)
    assert answer.status_code == 403
    assert "is not believed" in answer.text
    assert client.get("/queue").headers["location"] == "/sign-in"


def test_state_is_bound_to_the_browser_that_began(desk: Served) -> None:
    """Authlib CVE-2026-41425: an answer that another browser began signs nobody in."""
    mine, other = desk.visitor(), desk.visitor()
    address = been_there(begun(mine))
    assert other.get(address).status_code == 403
    begun(other)
    assert other.get(address).status_code == 403, "a way of its own does not help"
    assert mine.get(address.replace("state=", "state=x")).status_code == 403
    assert mine.get(f"/sign-in/oidc/back?code={parse_qs(urlsplit(address).query)['code'][0]}").status_code == 403
    assert "session" not in "".join(mine.cookies) + "".join(other.cookies)
    assert mine.get(address).status_code == 200, "what others tried took nothing from who began"


def test_an_answer_counts_once(desk: Served, provider: Provider) -> None:
    client = desk.visitor()
    address = been_there(begun(client))
    cookies = dict(client.cookies)
    assert client.get(address).status_code == 200
    replayed = httpx.get(desk.url + urlsplit(address).path, params=urlsplit(address).query, cookies=cookies)
    assert replayed.status_code == 403
    code = parse_qs(urlsplit(address).query)["code"][0]
    again = desk.visitor()
    fresh = been_there(begun(again))
    own = parse_qs(urlsplit(fresh).query)["code"][0]
    answer = again.get(fresh.replace(own, code))
    assert answer.status_code == 403
    assert "did not take the code" in answer.text


def test_the_code_of_another_is_no_use_without_its_verifier(desk: Served) -> None:
    victim, thief = desk.visitor(), desk.visitor()
    stolen = parse_qs(urlsplit(been_there(begun(victim))).query)["code"][0]
    own = been_there(begun(thief))
    answer = thief.get(own.replace(parse_qs(urlsplit(own).query)["code"][0], stolen))
    assert answer.status_code == 403
    assert "did not take the code" in answer.text


def test_who_is_not_bound_is_told_what_to_ask_for_and_no_user_is_made(desk: Served, provider: Provider) -> None:
    before = desk.serving.users.list()
    provider.who = "sub-nobody"
    client, answer = signed_in(desk)
    assert answer.status_code == 403
    assert "finllm users bind NAME --subject sub-nobody" in answer.text
    assert desk.serving.users.list() == before
    assert client.get("/queue").headers["location"] == "/sign-in"


def test_account_matched_by_e_mail_claim(desk: Served, provider: Provider) -> None:
    """Grafana CVE-2023-3128: whatever name or address the token has, issuer and subject alone say who it is."""
    provider.who, provider.lies = (
        "sub-nobody",
        {"email": "rev1@example.com", "preferred_username": "rev1", "name": "rev1"},
    )
    _, answer = signed_in(desk)
    assert answer.status_code == 403


def test_the_same_subject_of_another_issuer_is_somebody_else(desk: Served, provider: Provider) -> None:
    desk.serving.users.bind("rev1", "https://other.example", "sub-rev1", by="boss")
    _, answer = signed_in(desk)
    assert answer.status_code == 403


def test_a_disabled_user_is_not_let_in(desk: Served) -> None:
    desk.serving.users.disable("rev1", by="boss")
    client, answer = signed_in(desk)
    assert answer.status_code == 403
    assert "is disabled" in answer.text
    assert client.get("/queue").headers["location"] == "/sign-in"


def test_what_the_provider_refuses_is_told(desk: Served, provider: Provider) -> None:
    provider.answers = {"code": "", "error": "access_denied", "error_description": "<script>alert(1)</script>"}
    _, answer = signed_in(desk)
    assert answer.status_code == 403
    assert "access_denied" in answer.text
    assert "alert(1)" not in answer.text
    provider.answers = {"iss": "https://evil.example"}
    _, answer = signed_in(desk)
    assert "another provider" in answer.text


def test_open_redirects_are_refused(desk: Served, provider: Provider) -> None:
    """Wherever a request would like to go afterwards: back is to this desk's own address, and from there to its own
    pages."""
    client = desk.visitor()
    for wish in ("next=https://evil.example", "redirect_uri=https://evil.example", "to=//evil.example"):
        address = been_there(begun(client, f"/sign-in/oidc?{wish}"))
        assert address.startswith(f"{desk.url}/sign-in/oidc/back?")
        shown = client.get(address + f"&{wish}").text
        assert "evil" not in shown
        client.cookies.clear()
    assert client.get("/sign-in/oidc", headers={"host": "evil.example"}).status_code == 400
    assert client.get("/sign-in/oidc", headers={"host": "127.0.0.1:1"}).status_code == 400
    assert all(one["redirect_uri"] == f"{desk.url}/sign-in/oidc/back" for one in provider.asked)


def test_no_token_is_kept_or_told(desk: Served, provider: Provider, capfd: pytest.CaptureFixture[str]) -> None:
    client, answer = signed_in(desk)
    provider.lies = {"aud": "another"}
    _, refused = signed_in(desk)
    said = capfd.readouterr()
    assert len(provider.given) == 4
    for secret in (*provider.given, SECRET):
        assert secret not in answer.text + refused.text + said.out + said.err
        for path in desk.serving.settings.home.rglob("*"):
            if path.is_file():
                assert secret.encode() not in path.read_bytes(), path
    assert SECRET not in repr(desk.serving.settings)
    cookie = client.cookies["finllm-session"].encode()
    assert cookie not in (desk.serving.settings.users_path).read_bytes()


def signs(served: Served, client: httpx.Client, **form: str) -> httpx.Response:
    item = served.made.item
    report = served.serving.reviews.record.get(item).row.report_sha256
    return served.post(client, f"/item/{item}/sign", reason="read whole", report=report, again="yes", **form)


def test_to_sign_takes_signing_in_again(desk: Served, provider: Provider) -> None:
    client, _ = signed_in(desk)
    item = f"/item/{desk.made.item}"
    assert "to sign" in client.get(item).text
    refused = signs(desk, client)
    assert refused.status_code == 403
    assert "takes signing in again" in refused.text
    there = begun(client, f"{item}/again")
    assert {"prompt": "login", "max_age": "0"}.items() <= {
        k: v[0] for k, v in parse_qs(urlsplit(there).query).items()
    }.items()
    proved = client.get(been_there(there))
    assert proved.status_code == 200
    assert f'content="0;url={item}#sign"' in proved.text
    assert "You have just signed in again" in client.get(item).text
    assert signs(desk, client).status_code == 303
    signature = desk.serving.reviews.record.get(desk.made.item).signatures[0]
    assert signature.by == "rev1"
    assert signature.statement.endswith(f"signed in again as subject sub-rev1 of {provider.issuer}")


def test_what_was_proved_is_good_once_for_those_bytes_and_that_sign_in(desk: Served, provider: Provider) -> None:
    client, _ = signed_in(desk)
    item = desk.made.item
    client.get(been_there(begun(client, f"/item/{item}/again")))
    other, _ = signed_in(desk)
    assert signs(desk, other).status_code == 403, "another sign-in of the same person"
    flows = desk.serving.reviews.flows
    secret = client.cookies["finllm-session"]
    with pytest.raises(AccessRefused):
        flows.spend(secret, "rev1", item, "f" * 64)
    report = desk.serving.reviews.record.get(item).row.report_sha256
    assert flows.spend(secret, "rev1", item, report)
    with pytest.raises(AccessRefused):
        flows.spend(secret, "rev1", item, report)


@pytest.mark.parametrize("when", [None, -3600, "soon"])
def test_a_provider_that_did_not_ask_anew_proves_nothing(desk: Served, provider: Provider, when: Any) -> None:
    client, _ = signed_in(desk)
    provider.lies = {"auth_time": int(time.time()) + when if isinstance(when, int) else when}
    answer = client.get(been_there(begun(client, f"/item/{desk.made.item}/again")))
    assert answer.status_code == 403
    assert signs(desk, client).status_code == 403


def test_who_signs_in_again_as_somebody_else_proves_nothing(desk: Served, provider: Provider) -> None:
    desk.serving.users.bind("rev2", provider.issuer, "sub-rev2", by="boss")
    client, _ = signed_in(desk)
    provider.who = "sub-rev2"
    answer = client.get(been_there(begun(client, f"/item/{desk.made.item}/again")))
    assert answer.status_code == 403
    assert "it is &#39;rev1&#39; who is about to sign" in answer.text
    assert signs(desk, client).status_code == 403
    assert client.get("/account").text.count("rev1, reviewer") == 1


def test_who_signed_out_meanwhile_proves_nothing(desk: Served) -> None:
    client, _ = signed_in(desk)
    address = been_there(begun(client, f"/item/{desk.made.item}/again"))
    desk.serving.web_sessions.revoke_all("rev1")
    assert client.get(address).status_code == 403


def test_one_login_path_forgets_the_policy(made: Made, provider: Provider, tmp_path: Path) -> None:
    """Langfuse (v3.174.0): where only the provider's word counts, no pass phrase opens anything, at any door."""
    with serving_at(copied(made, tmp_path / "home"), **settings_of(provider, oidc_only=True)) as served:
        served.serving.users.bind("rev1", provider.issuer, "sub-rev1", by="boss")
        visitor = served.visitor()
        page = visitor.get("/sign-in").text
        assert "Pass phrase" not in page
        visitor.post("/sign-in", data={"token": "0" * 64, "name": "rev1", "phrase": PHRASE})
        with pytest.raises(AccessRefused, match="oidc_only"):
            served.serving.users.verify("rev1", PHRASE)
        client, answer = signed_in(served)
        assert answer.status_code == 200
        item = f"/item/{served.made.item}"
        assert "Your pass phrase again" not in client.get(item).text
        report = served.serving.reviews.record.get(served.made.item).row.report_sha256
        by_phrase = served.post(client, f"{item}/sign", phrase=PHRASE, reason="read", report=report)
        assert by_phrase.status_code == 403
        assert "pass phrases open nothing here" in by_phrase.text
        changed = served.post(client, "/account/phrase", old=PHRASE, phrase=PHRASE + "!", again=PHRASE + "!")
        assert changed.status_code == 403
        assert not served.serving.reviews.record.get(served.made.item).signatures


def test_a_pass_phrase_with_a_good_token_opens_nothing_either(made: Made, provider: Provider, tmp_path: Path) -> None:
    with serving_at(copied(made, tmp_path / "home"), **settings_of(provider, oidc_only=True)) as served:
        from finllm.web.tokens import form_token

        client = served.visitor()
        client.get("/sign-in")
        form = {"token": form_token(client.cookies["finllm-visit"]), "name": "rev1", "phrase": PHRASE}
        answer = client.post("/sign-in", data=form)
        assert answer.status_code == 403
        assert "oidc_only" in answer.text


@pytest.mark.parametrize("says", [{"issuer": "https://evil.example"}, {"token_endpoint": "http://evil.example/token"},
                                  {"jwks_uri": ""}, {"authorization_endpoint": "javascript:alert(1)"}])  # fmt: skip
def test_a_provider_that_is_not_what_was_set(desk: Served, provider: Provider, says: dict[str, str]) -> None:
    provider.says = says
    answer = desk.visitor().get("/sign-in/oidc")
    assert answer.status_code == 502
    assert "location" not in answer.headers


def test_a_provider_that_is_away_keeps_nobody_else_out(made: Made, tmp_path: Path) -> None:
    gone = Provider("http://127.0.0.1:9")
    with serving_at(copied(made, tmp_path / "home"), **settings_of(gone)) as served:
        answer = served.visitor().get("/sign-in/oidc")
        assert answer.status_code == 502
        assert "did not answer" in answer.text
        assert served.signed_in("rev1").get("/queue").status_code == 200


def test_without_a_provider_there_is_no_such_page(served: Served) -> None:
    for path in ("/sign-in/oidc", "/sign-in/oidc/back?state=x&code=y"):
        assert served.visitor().get(path).status_code == 404
    assert served.signed_in("rev1").get(f"/item/{served.made.item}/again").status_code == 404
    assert "oidc" not in served.visitor().get("/sign-in").text
    assert token_in(served.visitor().get("/sign-in").text)

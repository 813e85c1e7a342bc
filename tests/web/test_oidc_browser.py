"""A provider on another site, in a real Chromium: what its cookies' rules let through, with JavaScript and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.web.browsing import CHROMIUM, Watched, chromium
from tests.web.conftest import Made, copied, serving_at
from tests.web.identity_provider import provider_at
from tests.web.test_oidc import settings_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium, or name one in CHROMIUM"),
]


@pytest.mark.parametrize("script", [True, False])
def test_signed_in_and_again_to_sign_by_a_provider_on_another_site(made: Made, tmp_path: Path, script: bool) -> None:
    home = copied(made, tmp_path / "home")
    with (provider_at("localhost") as provider, serving_at(home, **settings_of(provider, oidc_only=True)) as served,
          chromium() as browser):  # fmt: skip
        served.serving.users.bind("rev1", provider.issuer, "sub-rev1", by="boss")
        one = Watched(browser, served, script=script)
        page = one.page
        page.goto("/sign-in")
        page.click("text=Sign in with localhost")
        page.wait_for_url("**/queue")
        page.click(f"a:has-text('{made.item} ')")
        page.click("text=to sign")
        page.wait_for_url(f"**/item/{made.item}#sign")
        form = page.locator("#sign form")
        form.locator("input[name=reason]").fill("read from end to end")
        form.locator("button").click()
        page.wait_for_selector("text=1 of 2 signatures")
        cookies = {cookie.get("name"): cookie for cookie in one.context.cookies()}
        assert cookies["finllm-session"].get("sameSite") == "Strict"
        assert "finllm-oidc" not in cookies
        assert [asked.get("prompt") for asked in provider.asked] == [None, "login"]
        if script:
            assert page.evaluate("window.violated") == []
        one.close()

"""The review queue of particles in the console, in a real Chromium: bundles with pictures are confirmed, single particles corrected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page
from tests.browser.console import sign_in
from tests.e2e.world import until
from tests.sem.service.pictures import KINDS, views

pytestmark = [pytest.mark.xdist_group("browser"), pytest.mark.filterwarnings("default")]
JAPANESE = {"disc": "円盤", "needle": "針状", "square": "四角"}
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def ask(genba: tuple[str, str]) -> Ask:
    """Ask the API as the admin; what it answers."""

    def asked(method: str, path: str, **options: Any) -> Any:
        headers = {"authorization": f"Bearer {genba[1]}", **options.pop("headers", {})}
        answer = httpx.request(method, f"{genba[0]}{path}", headers=headers, trust_env=False, timeout=60, **options)
        assert answer.is_success, answer.text
        return answer.json()

    return asked


@pytest.fixture(scope="module")
def lab(ask: Ask) -> dict[str, str]:
    """Labels with masters, and discs and needles that wait for a reviewer; label ids by kind."""
    found = {}
    for kind in KINDS:
        names = {"en": kind.capitalize(), "ja": JAPANESE[kind]}
        found[kind] = ask("POST", "/v1/sem/labels", json={"name": names})["id"]
        for seed in range(2):
            send(ask, kind, seed, name=f"master {kind} {seed}", master_of=found[kind])
    for kind, count in (("disc", 4), ("needle", 3)):
        for seed in range(count):
            send(ask, kind, 50 + seed, name=f"{kind} {seed}")
    return found


def send(ask: Ask, kind: str, seed: int, **fields: str) -> Any:
    files = [("views", (f"{k}.png", content, "image/png")) for k, content in enumerate(views(kind, seed=seed))]
    return ask("POST", "/v1/sem/particles", files=files, data=fields)


def waiting(ask: Ask) -> int:
    return int(ask("GET", "/v1/sem/reviews/progress")["waiting"])


def seen(page: Page, selector: str) -> bool:
    """Whether every picture there is has been loaded."""
    shown = f"[...document.querySelectorAll('{selector} img')]"
    return bool(
        page.evaluate(f"{shown}.length > 0 && {shown}.every((image) => image.complete && image.naturalWidth > 0)")
    )


def test_a_bundle_is_looked_at_and_confirmed_without_the_stranger(
    page: Page, genba: tuple[str, str], ask: Ask, lab: dict[str, str]
) -> None:
    before = waiting(ask)
    sign_in(page, genba[1])
    page.click("nav button[data-tab=particles]")
    page.wait_for_selector(f"#review-state:has-text('Waiting {before}')")
    page.click("button[data-act=bundle]")
    page.click("#bundles button[data-bundle]")
    page.wait_for_selector("#review .shot[data-member]")
    until(lambda: seen(page, "#review .shots"), what="the pictures of the bundle")
    assert "too few reviews yet to confirm anything" in page.inner_text("#review")
    members = int(page.inner_text("#review h2").split()[1])
    stranger = page.get_attribute("#review .shot[data-member]", "data-member")
    page.check(f".shot[data-member={stranger}] input")
    page.click("#review button[data-act=confirm]")
    page.wait_for_selector("#message:has-text('Settled:')")
    assert waiting(ask) == before - members + 1
    assert ask("GET", f"/v1/sem/particles/{stranger}")["in_queue"]
    page.wait_for_selector(f"#review-state:has-text('Waiting {before - members + 1}')")


def test_a_particle_is_corrected_and_what_somebody_else_just_said_is_not_overwritten(
    page: Page, genba: tuple[str, str], ask: Ask, lab: dict[str, str]
) -> None:
    sent = [send(ask, "square", 80 + seed, name=f"odd {seed}") for seed in range(2)]
    sign_in(page, genba[1])
    page.click("nav button[data-tab=particles]")
    page.click(f"#singles button[data-particle={sent[0]['id']}]")
    page.wait_for_selector("#review .shot[data-view='1']")
    until(lambda: seen(page, "#review .shots"), what="its views and the nearest masters")
    page.select_option("#label", lab["needle"])
    page.fill("#note", "a broken needle")
    page.click("#review button[data-act=confirm]")
    page.wait_for_selector("#message:has-text('odd 0')")
    corrected = ask("GET", f"/v1/sem/particles/{sent[0]['id']}")
    assert corrected["label"]["id"] == lab["needle"]
    [word] = ask("GET", "/v1/sem/reviews/history", params={"particle_id": sent[0]["id"]})["items"]
    assert (word["note"], word["seconds"] > 0) == ("a broken needle", True)

    page.click(f"#singles button[data-particle={sent[1]['id']}]")
    page.wait_for_selector("#review button[data-act=confirm]")
    tagged = {"headers": {"if-match": "*"}, "json": {"tags": ["looked at"]}}
    ask("PATCH", f"/v1/sem/particles/{sent[1]['id']}", **tagged)
    page.click("#review button[data-act=confirm]")
    page.wait_for_selector("#message.bad")
    page.click("#language")
    page.wait_for_selector("h2:has-text('一つずつ')")  # the page is drawn anew
    page.click(f"#singles button[data-particle={sent[1]['id']}]")
    page.wait_for_selector("#review h3:has-text('最も近い見本')")
    assert "四角" in page.inner_text("#review")
    page.select_option("#label", "")
    page.click("#review button[data-act=confirm]")
    page.wait_for_selector("#message")
    assert ask("GET", f"/v1/sem/particles/{sent[1]['id']}")["label"] is None
